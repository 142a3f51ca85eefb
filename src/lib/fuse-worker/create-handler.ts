// The handler of each kind of file system, in a worker's thread.

import type {HandlerKind, RequestHandler, RequestHost} from '../fuse/request-handler.ts'
import {createDataHandler} from '../fuse-data/data-handler.ts'
import {createTreeHandler} from '../fuse-tree/tree-handler.ts'

/** `put` gets only entries that were made for this kind. */
export function createHandler(kind: HandlerKind, host: RequestHost): RequestHandler {
  switch (kind) {
    case 'data':
      return createDataHandler(host)
    case 'deferring':
      return {put: () => {}, delete: () => {}, handle: request => host.defer(request)}
    case 'tree':
    case 'bare-tree':
      return createTreeHandler(host, {bare: kind === 'bare-tree'})
  }
}
