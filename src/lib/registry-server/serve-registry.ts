// A registry over a store: the distribution API (OCI distribution-spec v1.1) on node:http, for tests, for machines
// without a network, and to hand an image from one tool to another.

import type {CallOptions} from '../oci/content-store.ts'
import type {Store} from '../oci/image-store.ts'
import {answerFromStore, type Credentials} from './answer-from-store.ts'
import {answerRequest, type RequestLogEntry} from './answer-request.ts'
import type {Registry} from './exchange.ts'
import {type ListenOptions, type RunningServer, startServer} from './http-server.ts'
import {createKnownBlobs} from './known-blobs.ts'
import {createUploadSessions} from './upload-sessions.ts'
import {createWriteLease} from './write-lease.ts'

export interface RegistryOptions extends CallOptions, ListenOptions {
  /** Domain under which the store keeps images that were pushed without one; `localhost` by default. */
  readonly domain?: string | undefined
  readonly readOnly?: boolean | undefined
  /** Basic authentication for everything; off by default: then whoever reaches the address may write. */
  readonly credentials?: Credentials | undefined
  readonly onRequest?: ((entry: RequestLogEntry) => void) | undefined
}

/** Disposing lets running requests finish for a moment, then ends them; the store stays open, it is the caller's. */
export type RunningRegistry = RunningServer

/**
 * Starts a registry. `HOST:PORT/app:1` is kept as the image `localhost/app:1`; a repository that begins with a host
 * name (`docker.io/library/debian`) is kept, and found, by that name. Images pulled into the store are found by the
 * name that the client uses, and those of Docker Hub also without `docker.io/library/`. Throws `failed-precondition`
 * when the address cannot be had. Aborting the signal closes it, like disposing it.
 */
export async function serveRegistry(store: Store, options: RegistryOptions = {}): Promise<RunningRegistry> {
  options.signal?.throwIfAborted()
  const registry: Registry = {
    store,
    naming: {domain: options.domain ?? 'localhost'},
    readOnly: options.readOnly ?? false,
    blobs: createKnownBlobs(store.content),
    uploads: createUploadSessions(store.content),
    lease: createWriteLease(store),
  }
  const answer = answerFromStore(registry, options.credentials)
  const server = await startServer(options, (request, response) =>
    answerRequest(answer, options, request, response),
  )
  let closing: Promise<void> | undefined
  const close = () => (closing ??= closeRegistry(server, registry))
  const onAbort = () => void close().catch(() => undefined)
  options.signal?.addEventListener('abort', onAbort, {once: true})
  const {address, port, url} = server
  return {
    address,
    port,
    url,
    async [Symbol.asyncDispose]() {
      options.signal?.removeEventListener('abort', onAbort)
      await close()
    },
  }
}

async function closeRegistry(server: RunningServer, registry: Registry): Promise<void> {
  await server[Symbol.asyncDispose]()
  await registry.uploads[Symbol.asyncDispose]()
  await registry.lease[Symbol.asyncDispose]()
}
