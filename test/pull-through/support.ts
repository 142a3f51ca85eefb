// A converting registry before one that fails on request, with requests to it as clients make them.

import {tmpdir} from 'node:os'
import {onTestFinished} from 'vitest'
import {createLayerConversion, parallelLayers} from '../../src/lib/conversion/layer-conversion.ts'
import type {LayerConversion} from '../../src/lib/convert/convert-image.ts'
import {samePaths} from '../../src/lib/convert/lazy-conversion.ts'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import type {ImageIndex, ImageManifest} from '../../src/lib/oci/manifest.ts'
import {OCI_INDEX, OCI_MANIFEST} from '../../src/lib/oci/media-type.ts'
import type {ConversionEvent} from '../../src/lib/pull-through/conversions.ts'
import {type PullThroughOptions, servePullThrough} from '../../src/lib/pull-through/serve-pull-through.ts'
import {parseUpstreams} from '../../src/lib/pull-through/upstreams.ts'
import {ANONYMOUS} from '../../src/lib/registry/keychain.ts'
import type {RequestLogEntry} from '../../src/lib/registry-server/answer-request.ts'
import type {RunningServer} from '../../src/lib/registry-server/http-server.ts'
import {type Answer, type SendOptions, send} from '../registry-server/support.ts'
import {
  type FaultyRegistry,
  type FaultyRegistryOptions,
  startFaultyRegistry,
} from '../support/faulty-registry.ts'
import {memoryContent} from '../support/memory-content.ts'
import {
  type SampleImage,
  type SampleOptions,
  writeSampleImage,
  writeSampleIndex,
} from '../support/sample-image.ts'
import {temporaryDirectory} from '../support/temporary.ts'

/** An upstream that ends with the running test. */
export async function startUpstream(options: FaultyRegistryOptions = {}): Promise<FaultyRegistry> {
  const upstream = await startFaultyRegistry(options)
  onTestFinished(() => upstream[Symbol.asyncDispose]())
  return upstream
}

/** Puts a sample image there. */
export async function addSampleImage(
  upstream: FaultyRegistry,
  repository: string,
  tag: string,
  options: SampleOptions = {},
): Promise<SampleImage> {
  const content = memoryContent()
  const image = await writeSampleImage(content, options)
  for (const bytes of content.blobs.values()) upstream.addBlob(repository, bytes)
  upstream.addManifest(repository, tag, JSON.parse(String(content.blobs.get(image.root.digest))))
  return image
}

/** Puts an index of sample images there. */
export async function addSampleIndex(
  upstream: FaultyRegistry,
  repository: string,
  tag: string,
  architectures: readonly string[],
): Promise<{readonly root: Descriptor; readonly images: readonly {readonly root: Descriptor}[]}> {
  const content = memoryContent()
  const index = await writeSampleIndex(content, architectures)
  for (const bytes of content.blobs.values()) upstream.addBlob(repository, bytes)
  for (const {root} of [...index.images, index]) {
    const name = root === index.root ? tag : root.digest
    upstream.addManifest(repository, name, JSON.parse(String(content.blobs.get(root.digest))))
  }
  return index
}

export interface Stage extends RunningServer {
  readonly log: readonly RequestLogEntry[]
  readonly events: readonly ConversionEvent[]
  send(method: string, path: string, options?: SendOptions): Promise<Answer>
  /** Resolves when `count` conversions have ended, well or not. */
  ended(count: number): Promise<void>
}

export type StageOptions = Partial<PullThroughOptions> & {
  /** Where converted images are kept; a fresh directory without. */
  readonly directory?: string
}

/** Starts a converting registry that ends with the running test; `upstreams` are as `--upstream` has them. */
export async function startStage(upstreams: readonly string[], options: StageOptions = {}): Promise<Stage> {
  const directory = options.directory ?? (await temporaryDirectory())
  const store = await openLocalStore(directory)
  const log: RequestLogEntry[] = []
  const events: ConversionEvent[] = []
  const waiting = new Set<() => void>()
  const server = await servePullThrough(store, {
    upstreams: parseUpstreams(upstreams),
    publicUrl: undefined,
    registry: {retry: {attempts: 2, minDelayMs: 1, maxDelayMs: 1}},
    keychain: ANONYMOUS,
    layersOf: async () => sampleConversion(),
    parallelLayers: parallelLayers(),
    parallelImages: 2,
    waitMs: 0,
    platforms: [{os: 'linux', architecture: 'amd64'}],
    maxSize: 1024 ** 3,
    inUseMs: 0,
    accessMs: 60_000,
    onRequest: entry => void log.push(entry),
    onConversion: event => {
      events.push(event)
      for (const look of waiting) look()
    },
    ...options,
  })
  let closing: Promise<void> | undefined
  const close = () =>
    (closing ??= (async () => {
      await server[Symbol.asyncDispose]()
      await store[Symbol.asyncDispose]()
    })())
  onTestFinished(close)
  return {
    ...server,
    log,
    events,
    send: (method, path, more = {}) => send(server.url + path, method, more),
    async ended(count) {
      const isDone = () => events.filter(({kind}) => kind !== 'started').length >= count
      while (!isDone()) {
        await new Promise<void>(resolve => {
          waiting.add(resolve)
        })
      }
    },
    [Symbol.asyncDispose]: close,
  }
}

/** The conversion that `registry serve` has, which remembers nothing. */
export function sampleConversion(): LayerConversion {
  const none = samePaths([])
  return createLayerConversion(
    {kind: 'estargz', level: 1, chunkSize: 0, minChunkSize: 0, toc: 'inside'},
    {
      memoryDirectory: undefined,
      temporaryDirectory: tmpdir(),
      prioritizedIn: () => none,
      say: () => {},
    },
  )
}

export const ACCEPT = {accept: `${OCI_INDEX}, ${OCI_MANIFEST}, */*`}

export function manifestOf(answer: Answer): ImageManifest {
  return JSON.parse(answer.body.toString())
}

export function indexOf(answer: Answer): ImageIndex {
  return JSON.parse(answer.body.toString())
}

export function basic(username: string, password: string): {readonly authorization: string} {
  return {authorization: `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`}
}
