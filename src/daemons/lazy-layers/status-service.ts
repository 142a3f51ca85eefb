// How lazy layers are doing, and where the time of starts went, for `ctr-remote lazy status`; and what a pull says beforehand.

import {CodedError} from '../../lib/errors/coded-error.ts'
import type {Labels} from '../../lib/layer/layer-request.ts'
import type {LazyLayerStatus} from '../../lib/layer/lazy-layer-status.ts'
import type {PrunedLayers} from '../../lib/layer/ports.ts'
import type {StartTiming} from '../../lib/layer/start-timing.ts'
import {layerMessage, startMessage} from '../../lib/snapshotter-client/messages.ts'
import {LazyLayers} from '../../lib/snapshotter-client/proto/lazy_layers_pb.ts'
import type {GrpcServer} from '../process/grpc-server.ts'

/** Layers in one message. */
const LIST_BATCH = 100

/** What the service tells, and is told. */
export interface LazyLayersReport {
  readonly status: () => readonly LazyLayerStatus[]
  /** The last one first. */
  readonly starts: () => readonly StartTiming[]
  /** Layers will be asked for with labels such as these. Throws as `parseLabels`. */
  readonly announce: (labels: Labels) => void
  /** Removes what is kept of layers that nobody has mounted. */
  readonly prune: () => Promise<PrunedLayers>
}

/** What containerd accepts of a label, key and value together, bytes; and labels that any snapshot could have. */
const MAX_LABEL_SIZE = 4096
const MAX_LABELS = 256

/** Adds `ctr_remote.snapshotter.v1.LazyLayers` to a server. */
export function serveLazyLayers(
  server: GrpcServer,
  {status, starts, announce, prune}: LazyLayersReport,
): void {
  server.add(LazyLayers, {
    list: async function* ({reference}) {
      const layers = status()
        .filter(layer => reference === '' || layer.reference === reference)
        .toSorted((a, b) => (a.mountpoint < b.mountpoint ? -1 : 1))
      for (let index = 0; index < layers.length; index += LIST_BATCH) {
        yield {layers: layers.slice(index, index + LIST_BATCH).map(layerMessage)}
      }
    },
    announce: async ({labels}) => {
      requireBounded(labels)
      announce(labels)
      return {}
    },
    starts: async function* () {
      for (const start of starts()) yield startMessage(start)
    },
    prune: async () => {
      const {layers, bytes} = await prune()
      return {layers, bytes: BigInt(bytes)}
    },
  })
}

function requireBounded(labels: Labels): void {
  const entries = Object.entries(labels)
  const isBounded = ([key, value]: [string, string]) =>
    Buffer.byteLength(key) + Buffer.byteLength(value) <= MAX_LABEL_SIZE
  if (entries.length <= MAX_LABELS && entries.every(isBounded)) return
  throw new CodedError(
    'invalid-argument',
    'Cannot use labels that are longer, or more, than a snapshot may have',
  )
}
