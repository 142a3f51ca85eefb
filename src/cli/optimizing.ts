// What `optimize` puts first, and how it finds out: by running the workload, from a list, or not at all.

import {readFile, rename, rm, writeFile} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import type {LayerToConvert} from '../lib/convert/convert-image.ts'
import {
  type ManifestNode,
  type PlatformSelection,
  readConfig,
  readImageTree,
} from '../lib/convert/image-tree.ts'
import {type Prioritized, samePaths} from '../lib/convert/lazy-conversion.ts'
import {CodedError} from '../lib/errors/coded-error.ts'
import {isEstargzLayer} from '../lib/estargz/is-estargz-layer.ts'
import type {ProgressSink} from '../lib/io/progress.ts'
import {digestOf} from '../lib/io/sha256.ts'
import type {ImageSource} from '../lib/oci/image-store.ts'
import {formatPlatform, hostPlatform, matchesPlatform} from '../lib/oci/platform.ts'
import type {Profile, ProfileOptions} from '../lib/profile/profile-image.ts'
import {parsePrefetchList, selectPrefetchFiles} from '../lib/record/prefetch-list.ts'
import {encodeRecord} from '../lib/record/record-file.ts'
import type {WorkloadOptions} from '../lib/runc/workload.ts'
import {isZstdChunkedLayer} from '../lib/zstdchunked/is-zstdchunked-layer.ts'
import type {LayerFormat} from './conversion.ts'

export interface WatchFlags {
  readonly period: number
  readonly 'wait-on-line'?: string | undefined
  readonly 'wait-on-signal': boolean
  readonly 'record-out'?: string | undefined
}

export interface WatchContext {
  readonly platforms: PlatformSelection
  readonly signal: AbortSignal
  readonly say: (message: string) => void
}

export type PrioritizedIn = (layer: LayerToConvert) => Prioritized

/** Nothing comes first. */
export const nothingFirst: PrioritizedIn = () => samePaths([])

/** What a prefetch list names, in each layer. Throws `not-found` or `invalid-argument`. */
export async function listedFirst(file: string): Promise<PrioritizedIn> {
  const text = await readFile(file, 'utf8').catch(cause => {
    throw new CodedError('not-found', `Cannot read the prefetch list "${file}"`, {cause})
  })
  const patterns = parsePrefetchList(text, `"${file}"`)
  const prioritized: Prioritized = {
    key: digestOf(text),
    paths: layerPaths => selectPrefetchFiles(patterns, [layerPaths]).layers[0] ?? [],
  }
  return () => prioritized
}

/**
 * What the workload reads, found out by running it on this machine. Other platforms than the host's are converted with
 * nothing first. Writes the record when asked.
 */
export async function readFirst(
  source: ImageSource,
  workload: WorkloadOptions,
  flags: WatchFlags,
  context: WatchContext & {readonly onProgress: ProgressSink},
): Promise<PrioritizedIn> {
  const {requireRunc} = await import('../lib/runc/container.ts')
  await requireRunc(context)
  const {content} = source
  const tree = await readImageTree(content, await source.resolve(context), context.platforms, context)
  const runnable = tree.manifests.filter(runsHere)
  if (runnable.length === 0) {
    context.say(`warning: no image for ${formatPlatform(hostPlatform())} was chosen: nothing is run`)
  }
  const profiles = new Map<string, Profile>()
  for (const {descriptor, manifest} of runnable) {
    const config = await readConfig(content, manifest, context)
    const image = {content, manifestDigest: descriptor.digest, manifest, config}
    const profile = await runProfile(image, workload, flags, context)
    for (const warning of profile.warnings) context.say(`warning: ${warning}`)
    profiles.set(descriptor.digest, profile)
  }
  if (flags['record-out']) {
    const record = [...profiles.values()].flatMap(profile => profile.record)
    await writeRecord(flags['record-out'], encodeRecord(record))
  }
  return layer => samePaths(profiles.get(layer.manifestDigest)?.layers[layer.layerIndex] ?? [])
}

/** For `--reuse`: says whether a layer is in the wanted format already. */
export function reusableLayers(format: LayerFormat): (layer: LayerToConvert) => Promise<boolean> {
  return async layer => {
    const {descriptor, content, signal} = layer
    await using blob = await content.open(descriptor, {signal})
    return format.kind === 'zstdchunked'
      ? await isZstdChunkedLayer(blob, descriptor, {dialect: format.dialect, signal})
      : await isEstargzLayer(blob, descriptor, {signal})
  }
}

function runsHere({platform}: ManifestNode): boolean {
  return platform !== undefined && matchesPlatform(hostPlatform(), platform)
}

async function runProfile(
  image: Parameters<typeof import('../lib/profile/profile-image.ts').profileImage>[0],
  workload: WorkloadOptions,
  flags: WatchFlags,
  context: WatchContext & {readonly onProgress: ProgressSink},
): Promise<Profile> {
  const {profileImage} = await import('../lib/profile/profile-image.ts')
  const {profilingAdapters} = await import('./profiling-adapters.ts')
  const {consumeNextInterrupt} = await import('./interrupts.ts')
  const stop = new AbortController()
  const options: ProfileOptions = {
    adapters: profilingAdapters,
    workload,
    periodSeconds: flags.period,
    waitOnLine: flags['wait-on-line'],
    stopSignal: flags['wait-on-signal'] ? stop.signal : undefined,
    sandboxRoot: join(tmpdir(), 'ctr-remote-sandboxes'),
    signal: context.signal,
    onProgress: context.onProgress,
  }
  if (!flags['wait-on-signal']) return profileImage(image, options)
  using _interrupt = consumeNextInterrupt(() => stop.abort())
  return await profileImage(image, options)
}

/** The file has its name only when it is whole. */
async function writeRecord(file: string, bytes: Uint8Array): Promise<void> {
  const staged = `${file}.${process.pid}.new`
  try {
    await writeFile(staged, bytes)
    await rename(staged, file)
  } catch (cause) {
    throw new CodedError('failed-precondition', `Cannot write the record file "${file}"`, {cause})
  } finally {
    await rm(staged, {force: true})
  }
}
