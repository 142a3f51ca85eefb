// What `image check` finds of an image: how much of it is in the store, and whether it is unpacked.

import type {ContainerdStore} from '../containerd/store.ts'
import {chainIdsOf, isUnpacked} from '../containerd/unpack.ts'
import {type ManifestSummary, summarizeImage} from '../image/image-summary.ts'
import {readConfig} from '../image/image-tree.ts'
import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {ImageRecord} from '../oci/image-store.ts'
import {isConfigMediaType} from '../oci/media-type.ts'
import {formatPlatform, type Platform} from '../oci/platform.ts'

/** Counts and bytes of what the image needs on one platform. */
export interface CheckedImage {
  readonly name: string
  readonly mediaType: string
  readonly digest: string
  /** `unavailable` when nothing of the platform is there. */
  readonly status: 'complete' | 'incomplete' | 'unavailable'
  readonly present: {readonly count: number; readonly bytes: number}
  readonly required: {readonly count: number; readonly bytes: number}
  readonly unpacked: boolean
}

/** Checks what `platform` needs of an image: its manifest, config and layers. */
export async function checkImage(
  store: ContainerdStore,
  {name, target}: ImageRecord,
  platform: Platform,
  options: CallOptions & {readonly snapshotter: string},
): Promise<CheckedImage> {
  const summaries = await summarizeImage(store.content, target, options)
  const wanted = formatPlatform(platform)
  const summary = summaries.find(found => found.platform === wanted)
  const {mediaType, digest} = target
  const image = {name, mediaType, digest}
  if (!summary?.manifest) {
    const none = {count: 0, bytes: 0}
    return {...image, status: 'unavailable', present: none, required: none, unpacked: false}
  }
  const {manifest} = summary
  const required = [summary.descriptor, manifest.config, ...manifest.layers]
  const found = await Promise.all(required.map(blob => isThere(store.content, blob, options)))
  const present = required.filter((_, index) => found[index])
  return {
    ...image,
    status: present.length === required.length ? 'complete' : 'incomplete',
    present: tally(present),
    required: tally(required),
    unpacked: await isImageUnpacked(store, summary, options),
  }
}

async function isThere(content: ContentStore, blob: Descriptor, options: CallOptions): Promise<boolean> {
  return (await content.info(blob, options)) !== undefined
}

async function isImageUnpacked(
  store: ContainerdStore,
  {manifest}: ManifestSummary,
  options: CallOptions & {readonly snapshotter: string},
): Promise<boolean> {
  if (!manifest || !isConfigMediaType(manifest.config.mediaType)) return false
  if (!(await isThere(store.content, manifest.config, options))) return false
  const config = await readConfig(store.content, manifest, options)
  const top = chainIdsOf(config.rootfs.diff_ids).at(-1)
  // Without layers there is nothing to unpack.
  return top === undefined || (await isUnpacked(store, options.snapshotter, top, options))
}

function tally(blobs: readonly Descriptor[]): {count: number; bytes: number} {
  return {count: blobs.length, bytes: blobs.reduce((sum, {size}) => sum + size, 0)}
}
