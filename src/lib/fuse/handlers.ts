// The handler of each kind of file system, for whichever thread runs it.

import {CodedError} from '../errors/coded-error.ts'
import {createDataHandler} from './data-handler.ts'
import type {HandlerKind, RequestHandler, RequestHost} from './request-handler.ts'

/** `put` gets only entries that were made for this kind. */
export function createHandler(kind: HandlerKind, host: RequestHost): RequestHandler {
  switch (kind) {
    case 'data':
      return createDataHandler(host)
    case 'tree':
      throw new CodedError('unsupported', 'Cannot serve whole trees over FUSE yet')
  }
}
