// How lazy layers are doing, for `ctr-remote lazy status`.

import type {LazyLayerStatus} from '../../lib/snapshot/lazy-layer-status.ts'
import {layerMessage} from '../../lib/snapshotter-client/messages.ts'
import {LazyLayers} from '../../lib/snapshotter-client/proto/lazy_layers_pb.ts'
import type {GrpcServer} from '../grpc-server.ts'

/** Layers in one message. */
const LIST_BATCH = 100

/** Adds `ctr_remote.snapshotter.v1.LazyLayers` to a server. */
export function serveLazyLayers(server: GrpcServer, status: () => readonly LazyLayerStatus[]): void {
  server.add(LazyLayers, {
    list: async function* ({reference}) {
      const layers = status()
        .filter(layer => reference === '' || layer.reference === reference)
        .toSorted((a, b) => (a.mountpoint < b.mountpoint ? -1 : 1))
      for (let index = 0; index < layers.length; index += LIST_BATCH) {
        yield {layers: layers.slice(index, index + LIST_BATCH).map(layerMessage)}
      }
    },
  })
}
