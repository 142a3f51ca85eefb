// The status of a layer, and the timing of a start, as protobuf messages, and back.

import type {MessageInitShape} from '@bufbuild/protobuf'
import type {LazyLayerStatus} from '../layer/lazy-layer-status.ts'
import type {StartStep, StartTiming} from '../layer/start-timing.ts'
import type {LazyLayer, LazyLayerSchema, Start, StartSchema} from './proto/lazy_layers_pb.ts'

/** Every step by its name: what an adapter has of an engine are types. */
const STEPS: {readonly [step in StartStep]: step} = {
  prepare: 'prepare',
  'toc-request': 'toc-request',
  toc: 'toc',
  mount: 'mount',
  layer: 'layer',
  use: 'use',
  prefetch: 'prefetch',
  read: 'read',
  'read-request': 'read-request',
  background: 'background',
}
const BACKENDS = ['erofs', 'fuse', 'plain'] as const

export function layerMessage(status: LazyLayerStatus): MessageInitShape<typeof LazyLayerSchema> {
  const {hits, prefetchedUnread, ...rest} = status
  return {
    ...rest,
    size: BigInt(status.size),
    fetched: BigInt(status.fetched),
    deviceSize: BigInt(status.deviceSize),
    present: BigInt(status.present),
    prefetchSize: BigInt(status.prefetchSize),
    requests: BigInt(status.requests),
    errors: BigInt(status.errors),
    ...(hits === undefined ? {} : {hits: BigInt(hits)}),
    ...(prefetchedUnread === undefined ? {} : {prefetchedUnread: BigInt(prefetchedUnread)}),
  }
}

export function layerOf(message: LazyLayer): LazyLayerStatus {
  const backend = BACKENDS.find(known => known === message.backend)
  return {
    mountpoint: message.mountpoint,
    reference: message.reference,
    digest: message.digest,
    ...(message.tocDigest === undefined ? {} : {tocDigest: message.tocDigest}),
    lazy: message.lazy,
    ...(message.reason === undefined ? {} : {reason: message.reason}),
    ...(message.format === undefined ? {} : {format: message.format}),
    ...(backend === undefined ? {} : {backend}),
    size: Number(message.size),
    fetched: Number(message.fetched),
    deviceSize: Number(message.deviceSize),
    present: Number(message.present),
    prefetchSize: Number(message.prefetchSize),
    requests: Number(message.requests),
    errors: Number(message.errors),
    ...(message.hits === undefined ? {} : {hits: Number(message.hits)}),
    ...(message.prefetchedUnread === undefined ? {} : {prefetchedUnread: Number(message.prefetchedUnread)}),
    ...(message.lastError === undefined ? {} : {lastError: message.lastError}),
  }
}

export function startMessage(start: StartTiming): MessageInitShape<typeof StartSchema> {
  const spans = start.spans.map(({layer, step, fromMs, toMs, bytes}) => ({
    layer: start.layers.indexOf(layer),
    step,
    fromMs,
    toMs,
    bytes: BigInt(bytes),
  }))
  return {...start, layers: [...start.layers], spans}
}

/** Steps that only another version of the daemon knows are left out. */
export function startOf(message: Start): StartTiming {
  const {reference, beganAt, layers, dropped} = message
  const spans = message.spans.flatMap(({layer, step, fromMs, toMs, bytes}) => {
    const known = Object.hasOwn(STEPS, step) ? STEPS[step as StartStep] : undefined
    return known ? [{layer: layers[layer] ?? '', step: known, fromMs, toMs, bytes: Number(bytes)}] : []
  })
  return {reference, beganAt, layers, spans, dropped}
}
