// What this project's snapshotter says about its lazy layers, asked over its socket.

import {
  type GrpcCallOptions,
  type GrpcChannel,
  GrpcStatus,
  isGrpcFailure,
  openGrpcChannel,
} from '../containerd/grpc.ts'
import {CodedError} from '../errors/coded-error.ts'
import type {LazyLayerStatus} from '../layer/lazy-layer-status.ts'
import type {PrunedLayers} from '../layer/ports.ts'
import type {StartTiming} from '../layer/start-timing.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {layerOf, startOf} from './messages.ts'
import {LazyLayers} from './proto/lazy_layers_pb.ts'

export interface LazyLayersQuery extends CallOptions {
  /** The snapshotter's socket. */
  readonly address: string
  /** Only layers of this image reference, as containerd names it; all when absent. */
  readonly reference?: string | undefined
  /** How long the snapshotter may take; 10 s by default. */
  readonly timeoutMs?: number
}

const DEFAULT_TIMEOUT_MS = 10_000

/**
 * The layers that the snapshotter at `address` has been asked to mount lazily, by mountpoint. Throws `unavailable` when
 * none answers there, `unsupported` when it is another implementation, which does not tell.
 */
export async function listLazyLayers(query: LazyLayersQuery): Promise<readonly LazyLayerStatus[]> {
  const {reference = ''} = query
  return await ask(query, async (channel, call) => {
    const layers: LazyLayerStatus[] = []
    for await (const response of channel.serverStream(LazyLayers.method.list, {reference}, call)) {
      layers.push(...response.layers.map(layerOf))
    }
    return layers
  })
}

/** Where the time of the last starts went, the last one first. Throws as `listLazyLayers`. */
export async function listStarts(query: Omit<LazyLayersQuery, 'reference'>): Promise<readonly StartTiming[]> {
  return await ask(query, async (channel, call) => {
    const starts: StartTiming[] = []
    for await (const start of channel.serverStream(LazyLayers.method.starts, {}, call))
      starts.push(startOf(start))
    return starts
  })
}

/**
 * Says that the layers of an image will be asked for soon; `labels` are those of its first one's snapshot. Throws as
 * `listLazyLayers`.
 */
export async function announceLayers(
  labels: Readonly<Record<string, string>>,
  query: Omit<LazyLayersQuery, 'reference'>,
): Promise<void> {
  await ask(query, (channel, call) => channel.unary(LazyLayers.method.announce, {labels: {...labels}}, call))
}

/** Bytes on a disk may take a while to go. */
const PRUNE_TIMEOUT_MS = 300_000

/** Has the daemon remove what it keeps of layers that nobody has mounted. Throws as `listLazyLayers`. */
export async function pruneLayers(query: Omit<LazyLayersQuery, 'reference'>): Promise<PrunedLayers> {
  const patient = {timeoutMs: PRUNE_TIMEOUT_MS, ...query}
  const {layers, bytes} = await ask(patient, (channel, call) =>
    channel.unary(LazyLayers.method.prune, {}, call),
  )
  return {layers, bytes: Number(bytes)}
}

async function ask<T>(
  {address, signal, timeoutMs = DEFAULT_TIMEOUT_MS}: Omit<LazyLayersQuery, 'reference'>,
  question: (channel: GrpcChannel, call: GrpcCallOptions) => Promise<T>,
): Promise<T> {
  const path = address.replace(/^unix:(?:\/\/)?/, '')
  const channel = openGrpcChannel(path)
  try {
    return await question(channel, {headers: {}, signal, deadline: Date.now() + timeoutMs})
  } catch (failure) {
    throw isGrpcFailure(failure) ? describeFailure(failure.code, failure.details, path) : failure
  } finally {
    channel.close()
  }
}

function describeFailure(status: number, details: string, path: string): CodedError {
  switch (status) {
    case GrpcStatus.UNIMPLEMENTED:
      return new CodedError(
        'unsupported',
        `Cannot ask the snapshotter at "${path}" about lazy layers: it is another implementation, which does not tell`,
      )
    case GrpcStatus.UNAVAILABLE:
    case GrpcStatus.DEADLINE_EXCEEDED:
      return new CodedError(
        'unavailable',
        `Cannot reach the snapshotter at "${path}": ${details}; is it running, and is the address right?`,
      )
    default:
      return new CodedError('internal', `Cannot ask the snapshotter at "${path}": ${details}`)
  }
}
