// The status of a layer, and the timing of a start, as protobuf messages, and back.

import type {MessageInitShape} from '@bufbuild/protobuf'
import type {LazyLayerStatus} from '../layer/lazy-layer-status.ts'
import type {StartStep, StartTiming} from '../layer/start-timing.ts'
import {type LazyLayer, LazyLayerSchema, type Start, type StartSchema} from './proto/lazy_layers_pb.ts'

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
const BACKENDS: ReadonlySet<unknown> = new Set(['erofs', 'fuse', 'plain'])
const LAYER_FIELDS: ReadonlySet<string> = new Set(LazyLayerSchema.fields.map(({localName}) => localName))

/** The fields are those of the status, with 64 bits for numbers. */
export function layerMessage(status: LazyLayerStatus): MessageInitShape<typeof LazyLayerSchema> {
  return Object.fromEntries(
    Object.entries(status).map(([name, value]) => [name, typeof value === 'number' ? BigInt(value) : value]),
  )
}

/** The inverse; a backend that only another version of the daemon knows is left out. */
export function layerOf(message: LazyLayer): LazyLayerStatus {
  const isTold = ([name, value]: [string, unknown]) =>
    LAYER_FIELDS.has(name) && value !== undefined && (name !== 'backend' || BACKENDS.has(value))
  const told = Object.entries(message).filter(isTold)
  const fields = told.map(([name, value]) => [name, typeof value === 'bigint' ? Number(value) : value])
  return Object.fromEntries(fields)
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
