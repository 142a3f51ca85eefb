// Copies an image between any two places: pull, push, export and import are this with other ends.

import pLimit from 'p-limit'
import {digestOf} from '../blob/sha256.ts'
import {
  type ImageTree,
  type ManifestNode,
  type PlatformSelection,
  readImageTree,
} from '../image/image-tree.ts'
import type {ProgressSink} from '../io/progress.ts'
import {settleAll} from '../io/settle-all.ts'
import type {CallOptions, ContentStore, CopyOptions, OpenBlob} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {ImageSource, ImageTarget} from '../oci/image-store.ts'
import {encodeJson} from '../oci/manifest.ts'
import {isForeignLayer} from '../oci/media-type.ts'

/** Blobs copied at once; containerd's default is 3, and more gains nothing once the link is full. */
const PARALLEL_BLOBS = 4

export interface CopyImageOptions extends CallOptions {
  readonly platforms: PlatformSelection
  /**
   * What an index becomes when only some of its platforms are copied: `sparse` keeps its bytes and digest, and leaves
   * the other platforms' content out (as a pull into a store does); `reduced` writes an index, or the one manifest,
   * of what was copied (what a registry or an archive can hold).
   */
  readonly index: 'sparse' | 'reduced'
  /** Told what is going to be copied, before it is. */
  readonly onTree?: ((tree: ImageTree) => void) | undefined
  readonly onProgress?: ProgressSink | undefined
}

export interface CopiedImage {
  readonly root: Descriptor
  /** Bytes that were written, and bytes that the target had already. */
  readonly copiedBytes: number
  readonly presentBytes: number
}

/** Copies an image and publishes it under the target's name. Everything is verified on the way. */
export async function copyImage(
  source: ImageSource,
  target: ImageTarget,
  options: CopyImageOptions,
): Promise<CopiedImage> {
  const tree = await readImageTree(source.content, await source.resolve(options), options.platforms, options)
  options.onTree?.(tree)
  const tally = {copiedBytes: 0, presentBytes: 0}
  await copyManifests(source.content, target.content, tree.manifests, tally, options)
  const root = await copyRoot(source.content, target.content, tree, options)
  await target.publish(root, options)
  return {root, ...tally}
}

/** Copies one blob unless the target has it; resolves to whether bytes were written. */
export async function copyBlob(
  from: ContentStore,
  to: ContentStore,
  descriptor: Descriptor,
  options: CopyOptions = {},
): Promise<boolean> {
  if (await to.info(descriptor, options)) return false
  await using blob = await from.open(descriptor, options)
  if (to.writeFrom) {
    await to.writeFrom(blob, descriptor, options)
    return true
  }
  await using writer = await to.write({...descriptor, resume: true}, options)
  let doneBytes = writer.offset ?? 0
  for await (const bytes of rest(blob, doneBytes, options)) {
    await writer.write(bytes)
    doneBytes += bytes.length
    options.onBytes?.(doneBytes)
  }
  await writer.commit(descriptor, options)
  return true
}

/** The bytes from `offset` on; what is not verified here, the writer verifies with what it has. */
async function* rest(blob: OpenBlob, offset: number, options: CallOptions): AsyncGenerator<Uint8Array> {
  if (offset > 0 && offset === blob.size) return
  if (offset > 0 && offset < blob.size && blob.streamFrom) return yield* blob.streamFrom(offset, options)
  let skip = offset
  for await (const bytes of blob.stream(options)) {
    if (bytes.length > skip) yield bytes.subarray(skip)
    skip = Math.max(0, skip - bytes.length)
  }
}

/** Writes a JSON document as a blob; resolves to its descriptor. */
export async function writeDocument(
  content: ContentStore,
  document: unknown,
  mediaType: string,
  options: CallOptions = {},
): Promise<Descriptor> {
  const bytes = encodeJson(document)
  const descriptor = {mediaType, digest: digestOf(bytes), size: bytes.length}
  await using writer = await content.write(descriptor, options)
  await writer.write(bytes)
  await writer.commit(descriptor, options)
  return descriptor
}

interface Tally {
  copiedBytes: number
  presentBytes: number
}

/** Configs and layers first, in parallel; then the manifests, so that nobody sees one without its children. */
async function copyManifests(
  from: ContentStore,
  to: ContentStore,
  nodes: readonly ManifestNode[],
  tally: Tally,
  options: CopyImageOptions,
): Promise<void> {
  const blobs = new Map<string, {descriptor: Descriptor; label: string}>()
  for (const {manifest} of nodes) {
    blobs.set(manifest.config.digest, {descriptor: manifest.config, label: 'config'})
    for (const [index, layer] of manifest.layers.entries()) {
      // One that is elsewhere needs not be here.
      if (isForeignLayer(layer.mediaType) && !(await from.info(layer, options))) continue
      blobs.set(layer.digest, {descriptor: layer, label: `layer ${index + 1}/${manifest.layers.length}`})
    }
  }
  for (const {descriptor, label} of blobs.values()) report(options, descriptor, label, 'waiting')
  const limit = pLimit(PARALLEL_BLOBS)
  const abort = new AbortController()
  const signal = options.signal ? AbortSignal.any([options.signal, abort.signal]) : abort.signal
  const copies = [...blobs.values()].map(({descriptor, label}) =>
    limit(() => copyReported(from, to, descriptor, label, tally, {...options, signal})),
  )
  await settleAll(copies, abort)
  for (const {descriptor} of nodes) await copyBlob(from, to, descriptor, options)
}

async function copyReported(
  from: ContentStore,
  to: ContentStore,
  descriptor: Descriptor,
  label: string,
  tally: Tally,
  options: CopyImageOptions,
): Promise<void> {
  options.signal?.throwIfAborted()
  const written = await copyBlob(from, to, descriptor, {
    signal: options.signal,
    onBytes: doneBytes => report(options, descriptor, label, 'running', doneBytes),
  })
  if (written) tally.copiedBytes += descriptor.size
  else tally.presentBytes += descriptor.size
  report(options, descriptor, label, written ? 'done' : 'skipped', written ? descriptor.size : undefined)
}

/** The document that the target's name will point to. */
async function copyRoot(
  from: ContentStore,
  to: ContentStore,
  tree: ImageTree,
  options: CopyImageOptions,
): Promise<Descriptor> {
  const {root, index, manifests} = tree
  if (!index) return root
  if (options.platforms === 'all' || options.index === 'sparse') {
    for (const nested of tree.nestedIndexes) await copyBlob(from, to, nested, options)
    await copyBlob(from, to, root, options)
    return root
  }
  if (manifests.length === 1) return manifests[0]!.descriptor
  const kept = {...index, manifests: manifests.map(node => node.descriptor)}
  return writeDocument(to, kept, index.mediaType, options)
}

function report(
  options: CopyImageOptions,
  descriptor: Descriptor,
  label: string,
  phase: 'waiting' | 'running' | 'done' | 'skipped',
  doneBytes?: number,
): void {
  options.onProgress?.({
    id: descriptor.digest,
    label: `${label} ${descriptor.digest.slice(0, 19)}`,
    phase,
    totalBytes: descriptor.size,
    ...(doneBytes === undefined ? {} : {doneBytes}),
    ...(phase === 'skipped' ? {note: 'already there'} : {}),
  })
}
