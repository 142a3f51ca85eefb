// The status of a layer as a protobuf message, and back.

import type {MessageInitShape} from '@bufbuild/protobuf'
import type {LazyLayerStatus} from '../snapshot/lazy-layer-status.ts'
import type {LazyLayer, LazyLayerSchema} from './proto/lazy_layers_pb.ts'

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
