// The handler of each kind of file system, for whichever thread runs it.

import {createDataHandler} from './data-handler.ts'
import type {HandlerKind, RequestHandler, RequestHost} from './request-handler.ts'
import type {StateFiles} from './tree-answers.ts'
import {createTreeHandler} from './tree-handler.ts'

/** `put` gets only entries that were made for this kind. Only the main thread has the state files of trees. */
export function createHandler(kind: HandlerKind, host: RequestHost, stateFiles?: StateFiles): RequestHandler {
  switch (kind) {
    case 'data':
      return createDataHandler(host)
    case 'tree':
    case 'bare-tree':
      return createTreeHandler(host, {bare: kind === 'bare-tree', stateFiles})
  }
}
