// `registry serve --upstream`: the converting registry, as the flags describe it.

import {readFile} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {createLayerConversion, parallelLayers} from '../lib/conversion/layer-conversion.ts'
import {profiledFirst, readProfiles} from '../lib/conversion/profiles.ts'
import type {LayerConversion} from '../lib/convert/convert-image.ts'
import {samePaths} from '../lib/convert/lazy-conversion.ts'
import {CodedError, describeError, hasCode} from '../lib/errors/coded-error.ts'
import {platformsFrom} from '../lib/image/platform-selection.ts'
import {openLocalStore} from '../lib/layout/local-store.ts'
import {parseReference} from '../lib/oci/reference.ts'
import type {ConversionEvent} from '../lib/pull-through/conversions.ts'
import type {CopiesOptions, CopyEvent} from '../lib/pull-through/copies.ts'
import {servePullThrough} from '../lib/pull-through/serve-pull-through.ts'
import {parseUpstreams} from '../lib/pull-through/upstreams.ts'
import type {RecordEntry} from '../lib/record/record-file.ts'
import {ANONYMOUS} from '../lib/registry/keychain.ts'
import type {RequestLogEntry} from '../lib/registry-server/answer-request.ts'
import type {ListenOptions, RunningServer} from '../lib/registry-server/http-server.ts'
import {parseByteSize} from './byte-size.ts'
import type {PullThroughMetrics} from './pull-through-metrics.ts'
import {registryOptions} from './registry-options.ts'
import type {Session} from './session.ts'
import {dataDirectory} from './stores.ts'
import {formatBytes, formatDuration} from './units.ts'

/** The flags that only a converting registry has. */
export interface PullThroughFlags {
  readonly upstream: readonly string[]
  readonly wait?: number | undefined
  readonly platform?: readonly string[] | undefined
  readonly 'all-platforms': boolean
  readonly 'max-size'?: string | undefined
  readonly url?: string | undefined
  readonly 'data-dir'?: string | undefined
  readonly profiles?: string | undefined
  readonly 'push-to'?: string | undefined
  readonly 'webhook-secret-file'?: string | undefined
  readonly metrics?: string | undefined
  readonly 'log-format': 'text' | 'json'
  readonly 'skip-verify': boolean
  readonly 'plain-http': boolean
  readonly 'hosts-dir'?: string | undefined
  readonly tlscacert?: string | undefined
}

/** What the server has of the process. */
export interface PullThroughProcess {
  readonly session: Session
  readonly userAgent: string
  readonly listen: ListenOptions
  readonly onRequest: (entry: RequestLogEntry) => void
}

/** As `image convert --estargz` does it. */
const FORMAT = {kind: 'estargz', level: 9, chunkSize: 0, minChunkSize: 0, toc: 'inside'} as const
/** Compression takes all cores for one layer; a second image fills the time in which the first waits for bytes. */
const PARALLEL_IMAGES = 2
const DEFAULT_MAX_SIZE = '20GiB'
/** Between two requests of one pull. */
const IN_USE_MS = 5 * 60_000
const ACCESS_MS = 60_000

/** Starts it; the caller disposes it. Throws `invalid-argument` for flags that make no sense. */
export async function openPullThrough(
  flags: PullThroughFlags,
  {session, userAgent, listen, onRequest}: PullThroughProcess,
): Promise<RunningServer> {
  const {signal, say} = session
  const upstreams = parseUpstreams(flags.upstream)
  const publicUrl = flags.url === undefined ? undefined : parsePublicUrl(flags.url)
  const webhookSecret = await readSecret(flags['webhook-secret-file'])
  const {
    keychain = ANONYMOUS,
    credential: _,
    ...reached
  } = registryOptions(flags, {env: process.env, uid: process.getuid?.(), userAgent}, say)
  await using opened = new AsyncDisposableStack()
  const directory = join(dataDirectory(flags['data-dir'], process.env), 'pull-through')
  const store = opened.use(await openLocalStore(directory, {signal}))
  const metrics = await metricsAt(flags.metrics, opened)
  if (metrics) say(`metrics are at ${metrics.url}`)
  const onEvent = (event: ConversionEvent | CopyEvent) => {
    metrics?.onEvent(event)
    say(formatEvent(event, flags['log-format']))
  }
  const server = opened.use(
    await servePullThrough(store, {
      ...listen,
      upstreams,
      publicUrl,
      registry: reached,
      keychain,
      layersOf: repository => layersOf(repository, flags.profiles, session),
      parallelLayers: parallelLayers(),
      parallelImages: PARALLEL_IMAGES,
      waitMs: flags.wait ?? 0,
      platforms: platformsFrom(flags),
      maxSize: parseByteSize(flags['max-size'] ?? DEFAULT_MAX_SIZE),
      inUseMs: IN_USE_MS,
      accessMs: ACCESS_MS,
      onRequest: entry => {
        metrics?.onRequest(entry)
        onRequest(entry)
      },
      onConversion: onEvent,
      onPull: form => metrics?.onPull(form),
      webhookSecret,
      copies: copiesTo(flags['push-to'], session, onEvent),
      signal,
    }),
  )
  metrics?.follow(server.status)
  const resources = opened.move()
  const {address, port, url} = server
  return {address, port, url, [Symbol.asyncDispose]: () => resources.disposeAsync()}
}

async function metricsAt(
  address: string | undefined,
  opened: AsyncDisposableStack,
): Promise<PullThroughMetrics | undefined> {
  if (address === undefined) return undefined
  const {servePullThroughMetrics} = await import('./pull-through-metrics.ts')
  return opened.use(await servePullThroughMetrics(address))
}

/** How the layers of a repository's images become eStargz: in the order of its profile, if there is one. */
async function layersOf(
  repository: string,
  profiles: string | undefined,
  {memoryDirectory, say}: Session,
): Promise<LayerConversion> {
  const entries = profiles === undefined ? undefined : await readProfileOf(profiles, repository)
  const none = samePaths([])
  return createLayerConversion(FORMAT, {
    memoryDirectory,
    temporaryDirectory: tmpdir(),
    prioritizedIn: entries ? profiledFirst(entries) : () => none,
    say,
  })
}

/** `DIR/docker.io/library/debian.json`, which may be there or not. */
async function readProfileOf(
  directory: string,
  repository: string,
): Promise<readonly RecordEntry[] | undefined> {
  try {
    return await readProfiles([join(directory, `${repository}.json`)])
  } catch (error) {
    if (hasCode(error, 'not-found')) return undefined
    throw error
  }
}

/** Copies go below a repository, `registry.example.com/esgz`, where each registry has a directory by its name. */
function copiesTo(
  prefix: string | undefined,
  session: Session,
  onEvent: (event: CopyEvent) => void,
): Omit<CopiesOptions, 'images'> | undefined {
  if (prefix === undefined) return undefined
  const checked = parseReference(prefix)
  if (checked.tag !== undefined || checked.digest !== undefined) {
    throw new CodedError(
      'invalid-argument',
      `Cannot push to ${JSON.stringify(prefix)}: expected a registry and the beginning of a name, without a tag`,
    )
  }
  return {
    target: ({upstream, reference}, tag) =>
      session.target({transport: 'docker', reference: `${prefix}/${upstream}/${reference.path}:${tag}`}),
    onEvent,
  }
}

async function readSecret(file: string | undefined): Promise<string | undefined> {
  if (file === undefined) return undefined
  const text = await readFile(file, 'utf8').catch(cause => {
    throw new CodedError('not-found', `Cannot read the secret of webhooks in "${file}"`, {cause})
  })
  const secret = text.trim()
  if (secret !== '') return secret
  throw new CodedError('invalid-argument', `Cannot use the secret of webhooks in "${file}": it is empty`)
}

function parsePublicUrl(text: string): string {
  const url = URL.parse(text)
  if (url && /^https?:$/.test(url.protocol) && url.pathname === '/' && !url.search && !url.username) {
    return url.origin
  }
  throw new CodedError(
    'invalid-argument',
    `Cannot use ${JSON.stringify(text)} as the URL of this registry: expected one without a path, such as "https://mirror.example.com"`,
  )
}

/** `converted docker.io/library/debian@sha256:…  30 MB  2.1s`. */
export function formatEvent(event: ConversionEvent | CopyEvent, format: 'text' | 'json'): string {
  const error = 'error' in event ? describeError(event.error) : undefined
  if (format === 'json') {
    return JSON.stringify({
      time: new Date().toISOString(),
      ...event,
      ...(event.kind === 'converted' ? {elapsedMs: Math.round(event.elapsedMs)} : {}),
      ...(error === undefined ? {} : {error}),
    })
  }
  switch (event.kind) {
    case 'started':
      return `converting ${event.image}`
    case 'converted':
      return `converted ${event.image}  ${formatBytes(event.bytes)}  ${formatDuration(event.elapsedMs)}`
    case 'failed':
      return `cannot convert ${event.image}: ${error}`
    case 'copied':
      return `copied ${event.image} to ${event.to}`
    case 'copy-failed':
      return `cannot copy ${event.image} to ${event.to}: ${error}`
  }
}
