// What `optimize` puts first, and how it finds out: by running the workload, from the image itself, from
// profiles or a list, or not at all.

import {readFile} from 'node:fs/promises'
import {join} from 'node:path'
import {digestOf} from '../blob/sha256.ts'
import {MEMORY_CARE} from '../conversion/memory-care.ts'
import {profiledFirst, readProfiles} from '../conversion/profiles.ts'
import type {LayerToConvert} from '../convert/convert-image.ts'
import {type Prioritized, samePaths, whatWasRead} from '../convert/lazy-conversion.ts'
import {CodedError} from '../errors/coded-error.ts'
import {type ImageTree, isAttestation, type ManifestNode, readConfig} from '../image/image-tree.ts'
import {writeOutput} from '../io/output.ts'
import type {ProgressSink} from '../io/progress.ts'
import type {ContentStore} from '../oci/content-store.ts'
import {formatPlatform, hostPlatform, matchesPlatform} from '../oci/platform.ts'
import type {Profile, ProfiledImage, ProfileOptions} from '../profile/profile-image.ts'
import {parsePrefetchList, selectPrefetchFiles} from '../record/prefetch-list.ts'
import {encodeProfile} from '../record/profile-file.ts'
import {encodeRecord, type RecordEntry} from '../record/record-file.ts'
import type {WorkloadOptions} from '../runc/workload.ts'

/** How the files that come first are chosen. */
export type Priorities =
  | {readonly from: 'nothing'}
  /** A file of paths and globs. */
  | {readonly from: 'list'; readonly file: string}
  /** Profiles and records, one or more. */
  | {readonly from: 'profiles'; readonly files: readonly string[]}
  /** Profiles of the image that are kept elsewhere. */
  | {
      readonly from: 'elsewhere'
      readonly find: (manifests: readonly ManifestNode[]) => Promise<readonly RecordEntry[]>
    }
  | ({readonly from: 'workload'} & WatchedWorkload)
  /** What can be told of a start without running it. */
  | {
      readonly from: 'image'
      readonly workload: Pick<WorkloadOptions, 'entrypoint' | 'args' | 'env' | 'cwd'>
      readonly recordOut?: string | undefined
    }

/** What runs, and how long it is watched. */
export interface WatchedWorkload {
  readonly workload: WorkloadOptions
  readonly periodSeconds: number
  readonly waitOnLine?: string | undefined
  /** Until the user interrupts. */
  readonly waitOnSignal: boolean
  /** Where the record of what was read goes. */
  readonly recordOut?: string | undefined
  /** Where the profile goes: the record with what was read of each file, and when. */
  readonly profileOut?: string | undefined
}

export interface PrioritiesContext {
  readonly signal: AbortSignal
  readonly temporaryDirectory: string
  /** Bytes to which a layer may decompress at most; undefined for what there is room for. */
  readonly maxUncompressedSize?: number | undefined
  readonly onProgress: ProgressSink
  readonly say: (message: string) => void
}

export type PrioritizedIn = (layer: LayerToConvert) => Prioritized

/** What comes first in each layer of an image. Throws what reading the list, or running the workload, throws. */
export async function findPriorities(
  priorities: Priorities,
  image: {readonly content: ContentStore; readonly tree: ImageTree},
  context: PrioritiesContext,
): Promise<PrioritizedIn> {
  switch (priorities.from) {
    case 'nothing':
      return () => samePaths([])
    case 'list':
      return listedFirst(priorities.file)
    case 'profiles':
      return profiledFirst(await readProfiles(priorities.files))
    case 'elsewhere':
      return profiledFirst(await priorities.find(image.tree.manifests))
    case 'workload':
      return readFirst(priorities, image, context)
    case 'image':
      return predictedFirst(priorities, image, context)
  }
}

/** What a prefetch list names, in each layer. Throws `not-found` or `invalid-argument`. */
async function listedFirst(file: string): Promise<PrioritizedIn> {
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
async function readFirst(
  watched: WatchedWorkload,
  {content, tree}: {readonly content: ContentStore; readonly tree: ImageTree},
  context: PrioritiesContext,
): Promise<PrioritizedIn> {
  const {requireRunc} = await import('../runc/container.ts')
  await requireRunc(context)
  const runnable = tree.manifests.filter(runsHere)
  if (runnable.length === 0) {
    context.say(`warning: no image for ${formatPlatform(hostPlatform())} was chosen: nothing is run`)
  }
  const profiles = new Map<string, Profile>()
  for (const {descriptor, manifest} of runnable) {
    const config = await readConfig(content, manifest, context)
    const image = {content, manifestDigest: descriptor.digest, manifest, config}
    const profile = await runProfile(image, watched, context)
    for (const warning of profile.warnings) context.say(`warning: ${warning}`)
    profiles.set(descriptor.digest, profile)
  }
  const record = [...profiles.values()].flatMap(profile => profile.record)
  if (watched.recordOut) await writeRecord(watched.recordOut, encodeRecord(record), context.signal)
  if (watched.profileOut) await writeRecord(watched.profileOut, encodeProfile(record), context.signal)
  return ({manifestDigest, layerIndex}) => {
    const {layers, reads} = profiles.get(manifestDigest) ?? {}
    return whatWasRead(layers?.[layerIndex] ?? [], reads?.[layerIndex])
  }
}

/** What a start of each image reads, told from its files. Writes the record when asked. */
async function predictedFirst(
  {workload, recordOut}: Extract<Priorities, {from: 'image'}>,
  {content, tree}: {readonly content: ContentStore; readonly tree: ImageTree},
  context: PrioritiesContext,
): Promise<PrioritizedIn> {
  const {predictImage} = await import('../profile/predict-image.ts')
  const {commandOf, cwdOf} = await import('../runc/runtime-spec.ts')
  const record: RecordEntry[] = []
  for (const {descriptor, manifest} of tree.manifests.filter(node => !isAttestation(node.descriptor))) {
    const config = await readConfig(content, manifest, context)
    const {config: run = {}} = config
    const start = {
      words: commandOf(run, workload),
      env: [...(run.Env ?? []), ...(workload.env ?? [])],
      workingDirectory: cwdOf(run, workload),
    }
    const image = {content, manifestDigest: descriptor.digest, manifest, config}
    const options = {...context, maxLayerSize: context.maxUncompressedSize, memoryCare: MEMORY_CARE}
    record.push(...(await predictImage(image, start, options)))
  }
  if (recordOut) await writeRecord(recordOut, encodeRecord(record), context.signal)
  return ({manifestDigest, layerIndex}) =>
    samePaths(
      record
        .filter(entry => entry.manifestDigest === manifestDigest && entry.layerIndex === layerIndex)
        .map(({path}) => path),
    )
}

function runsHere({platform}: ManifestNode): boolean {
  return platform !== undefined && matchesPlatform(hostPlatform(), platform)
}

async function runProfile(
  image: ProfiledImage,
  watched: WatchedWorkload,
  context: PrioritiesContext,
): Promise<Profile> {
  const {profileImage} = await import('../profile/profile-image.ts')
  const {consumeNextInterrupt} = await import('../terminal/interrupts.ts')
  const stop = new AbortController()
  const options: ProfileOptions = {
    workload: watched.workload,
    periodSeconds: watched.periodSeconds,
    waitOnLine: watched.waitOnLine,
    stopSignal: watched.waitOnSignal ? stop.signal : undefined,
    maxLayerSize: context.maxUncompressedSize,
    memoryCare: MEMORY_CARE,
    sandboxRoot: join(context.temporaryDirectory, 'ctr-remote-sandboxes'),
    signal: context.signal,
    onProgress: context.onProgress,
  }
  if (!watched.waitOnSignal) return profileImage(image, options)
  using _interrupt = consumeNextInterrupt(() => stop.abort())
  return await profileImage(image, options)
}

async function writeRecord(file: string, bytes: Uint8Array, signal: AbortSignal): Promise<void> {
  await writeOutput(file, bytes, {signal}).catch(cause => {
    throw new CodedError('failed-precondition', `Cannot write the record file "${file}"`, {cause})
  })
}
