// Answers requests from a store: who may ask, which handler a path has.

import {timingSafeEqual} from 'node:crypto'
import {digestOf} from '../blob/sha256.ts'
import {basicAuthorization} from '../io/basic-authorization.ts'
import type {Answer} from './answer-request.ts'
import {cancelUpload, continueUpload, finishUpload, sendBlob, sendUploadStatus, startUpload} from './blobs.ts'
import {type Exchange, type Registry, reply} from './exchange.ts'
import {sendCatalog, sendTags} from './listings.ts'
import {deleteManifest, putManifest, sendManifest} from './manifests.ts'
import {Problem} from './problem.ts'
import {sendReferrers} from './referrers.ts'
import {parseRoute, type Route} from './route.ts'

export interface Credentials {
  readonly username: string
  readonly password: string
}

type Handler = (registry: Registry, exchange: Exchange) => Promise<void> | void

/** Answers from the store of `registry`, to whoever presents the credentials. */
export function answerFromStore(registry: Registry, credentials: Credentials | undefined): Answer {
  return (exchange, path) => {
    checkCredentials(credentials, exchange)
    return handlerFor(registry, exchange.method, path)(registry, exchange)
  }
}

function handlerFor({readOnly}: Registry, method: string, path: string | undefined): Handler {
  const route = path === undefined ? undefined : parseRoute(path)
  if (!route) throw new Problem('NAME_UNKNOWN', 'There is no such path in the distribution API')
  const handlers = handlersOf(route)
  const handler = handlers[method === 'HEAD' ? 'GET' : method]
  const isRead = method === 'GET' || method === 'HEAD'
  if (handler && (isRead || !readOnly)) return handler
  const allowed = Object.keys(handlers).filter(name => name === 'GET' || !readOnly)
  throw new Problem(
    'UNSUPPORTED',
    readOnly ? 'This registry is read-only' : `Method ${method} does not apply`,
    {
      allow: allowed.join(', '),
    },
  )
}

function handlersOf(route: Route): Readonly<Record<string, Handler>> {
  switch (route.kind) {
    case 'base':
      return {GET: (_, exchange) => reply(exchange, 200, {'content-type': 'application/json'}, '{}')}
    case 'catalog':
      return {GET: sendCatalog}
    case 'tags':
      return {GET: (registry, exchange) => sendTags(registry, exchange, route.repository)}
    case 'referrers':
      return {GET: (registry, exchange) => sendReferrers(registry, exchange, route.repository, route.digest)}
    case 'manifest': {
      const {repository, reference} = route
      return {
        GET: (registry, exchange) => sendManifest(registry, exchange, repository, reference),
        PUT: (registry, exchange) => putManifest(registry, exchange, repository, reference),
        DELETE: (registry, exchange) => deleteManifest(registry, exchange, repository, reference),
      }
    }
    case 'blob':
      // No DELETE: blobs are shared by all repositories, and go with garbage collection.
      return {GET: (registry, exchange) => sendBlob(registry, exchange, route.digest)}
    case 'uploads':
      return {POST: (registry, exchange) => startUpload(registry, exchange, route.repository)}
    case 'upload': {
      const {repository, id} = route
      return {
        GET: (registry, exchange) => sendUploadStatus(registry, exchange, repository, id),
        PATCH: (registry, exchange) => continueUpload(registry, exchange, repository, id),
        PUT: (registry, exchange) => finishUpload(registry, exchange, repository, id),
        DELETE: (registry, exchange) => cancelUpload(registry, exchange, repository, id),
      }
    }
  }
}

/** No htpasswd files: one user protects a registry of this kind, and their hashes would need another dependency. */
function checkCredentials(credentials: Credentials | undefined, {request}: Exchange): void {
  if (!credentials) return
  const wanted = basicAuthorization(credentials)
  // Digests, because only equal lengths can be compared in constant time.
  const [given, expected] = [request.headers.authorization ?? '', wanted].map(text =>
    Buffer.from(digestOf(text)),
  )
  if (timingSafeEqual(given!, expected!)) return
  throw new Problem('UNAUTHORIZED', 'Authentication is required', {
    'www-authenticate': 'Basic realm="ctr-remote registry"',
  })
}
