// What Podman's and CRI-O's helper tells the store.

import {Controller} from '../../lib/layer-store-client/proto/control_pb.ts'
import type {GrpcServer} from '../process/grpc-server.ts'

/** Adds `Controller`; `tell` takes the credentials that a message carries. */
export function serveControl(server: GrpcServer, tell: (json: Uint8Array) => Promise<void>): void {
  server.add(Controller, {
    addCredential: async ({data}) => {
      await tell(data)
      return {}
    },
  })
}
