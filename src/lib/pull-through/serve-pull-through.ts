// A registry that stands before others and converts what is pulled through it: any image is answered in the form that can
// be read lazily, as soon as it has been converted, and as it is until then.

import type {LayerConversion} from '../convert/convert-image.ts'
import {TaskScope} from '../io/task-scope.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Store} from '../oci/image-store.ts'
import type {Platform} from '../oci/platform.ts'
import type {Keychain} from '../registry/keychain.ts'
import {answerRequest, type RequestLogEntry} from '../registry-server/answer-request.ts'
import {type ListenOptions, type RunningServer, startServer} from '../registry-server/http-server.ts'
import {createKnownBlobs} from '../registry-server/known-blobs.ts'
import {AccessChecks} from './access.ts'
import {answerPullThrough} from './answer.ts'
import {ClientTokens} from './client.ts'
import {type ConversionEvent, Conversions} from './conversions.ts'
import {ConvertedImages, type ConvertedSize} from './converted-images.ts'
import {Copies, type CopiesOptions} from './copies.ts'
import {Documents} from './documents.ts'
import type {PullThrough} from './pull-through.ts'
import type {PublicUrl} from './token-endpoint.ts'
import {type UpstreamOptions, UpstreamSessions} from './upstream-sessions.ts'
import type {Upstreams} from './upstreams.ts'

export interface PullThroughOptions extends CallOptions, ListenOptions {
  readonly upstreams: Upstreams
  /** How upstreams are reached; credentials are the clients' own. */
  readonly registry: UpstreamOptions
  /** Our own credentials, for what webhooks have converted. */
  readonly keychain: Keychain
  /** Into what the layers of a repository's images are converted. */
  readonly layersOf: (repository: string) => Promise<LayerConversion>
  readonly parallelLayers: number
  readonly parallelImages: number
  /** How long a pull by tag waits for a conversion, milliseconds; 0 for pulls that never wait. */
  readonly waitMs: number
  /** Platforms of an index that are converted when its tag is pulled; others when they are pulled themselves. */
  readonly platforms: 'all' | readonly Platform[]
  /** Bytes of converted content that are kept. */
  readonly maxSize: number
  /** How long after a read an image is not taken away, milliseconds. */
  readonly inUseMs: number
  /** How long an upstream's word that a client may read an image holds, milliseconds. */
  readonly accessMs: number
  readonly publicUrl: PublicUrl
  readonly onRequest?: ((entry: RequestLogEntry) => void) | undefined
  readonly onConversion: (event: ConversionEvent) => void
  /** Told of each pull by tag in which form it was answered. */
  readonly onPull?: ((form: 'converted' | 'plain') => void) | undefined
  /** The secret of webhooks, which are not heard without one. */
  readonly webhookSecret?: string | undefined
  /** Where copies of converted images go, if anywhere. */
  readonly copies?: Omit<CopiesOptions, 'images'> | undefined
}

/** How it is going. */
export interface PullThroughStatus extends ConvertedSize {
  /** Conversions that run or wait. */
  readonly pending: number
}

export interface RunningPullThrough extends RunningServer {
  status(): PullThroughStatus
}

/**
 * Starts the registry over a store of its own, which stays the caller's. Disposing it, or aborting the signal, lets running
 * requests finish for a moment, and stops conversions, of which nothing is left. Throws `failed-precondition` when the
 * address cannot be had.
 */
export async function servePullThrough(
  store: Store,
  options: PullThroughOptions,
): Promise<RunningPullThrough> {
  const {signal, maxSize, onConversion} = options
  await using opened = new AsyncDisposableStack()
  const images = await ConvertedImages.open(store, options, {signal})
  await images.makeRoom(0, {signal})
  const sessions = opened.use(new UpstreamSessions(options.registry, options.keychain))
  const background = new TaskScope()
  opened.defer(() => background.close(new Error('The registry ends')))
  // Ends before what waits for it.
  const conversions = opened.use(new Conversions({...options, images, maxSize, onEvent: onConversion}))
  const copies = options.copies && opened.use(new Copies({...options.copies, images}))
  const through: PullThrough = {
    upstreams: options.upstreams,
    publicUrl: options.publicUrl,
    tokens: new ClientTokens(),
    sessions,
    access: new AccessChecks(options.accessMs),
    documents: new Documents(),
    images,
    blobs: createKnownBlobs(store.content),
    conversions,
    onPull: form => options.onPull?.(form),
    copies,
    webhookSecret: options.webhookSecret,
    background,
    waitMs: options.waitMs,
    platforms: options.platforms,
  }
  const answer = answerPullThrough(through)
  const server = opened.use(
    await startServer(options, (request, response) => answerRequest(answer, options, request, response)),
  )
  const resources = opened.move()
  let closing: Promise<void> | undefined
  const close = () => (closing ??= resources.disposeAsync())
  const onAbort = () => void close().catch(() => undefined)
  signal?.addEventListener('abort', onAbort, {once: true})
  const {address, port, url} = server
  return {
    address,
    port,
    url,
    status: () => ({...images.size, pending: conversions.pending}),
    async [Symbol.asyncDispose]() {
      signal?.removeEventListener('abort', onAbort)
      await close()
    },
  }
}
