// The kubelet's images whose layers a snapshotter does not have: the kubelet takes them for present and does not pull them.

import {checkImage} from '../check/check-image.ts'
import type {ContainerdStore} from '../containerd/store.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {ImageRecord} from '../oci/image-store.ts'
import {hostPlatform} from '../oci/platform.ts'

/** The namespace of the kubelet's images. */
export const KUBERNETES = 'k8s.io'

export interface MissingImage {
  readonly record: ImageRecord
  /** Whether all of its layers are in the store, to be unpacked. */
  readonly isComplete: boolean
}

export interface MissingImagesOptions extends CallOptions {
  readonly snapshotter: string
  /** What every pod needs first. */
  readonly pauseImage: string | undefined
}

/** Those that are missing, the pause image first, and how many were looked at. */
export async function findMissingImages(
  store: ContainerdStore,
  {snapshotter, pauseImage, signal}: MissingImagesOptions,
): Promise<{readonly looked: number; readonly missing: readonly MissingImage[]}> {
  const missing: MissingImage[] = []
  // An image has several names, such as its digest's: one that tells a person something is enough.
  const seen = new Set<string>()
  const images = [...(await store.images.list({signal}))].sort(
    (a, b) => rank(a.name, pauseImage) - rank(b.name, pauseImage),
  )
  for (const record of images) {
    if (seen.has(record.target.digest)) continue
    const {status, unpacked} = await checkImage(store, record, hostPlatform(), {snapshotter, signal})
    seen.add(record.target.digest)
    if (status !== 'unavailable' && !unpacked) missing.push({record, isComplete: status === 'complete'})
  }
  return {looked: seen.size, missing}
}

/** The pause image first, names before digests. */
function rank(name: string, pauseImage: string | undefined): number {
  if (name === pauseImage) return 0
  return name.startsWith('sha256:') ? 2 : 1
}
