// Which images have a layer, beside the one that it was mounted for: whoever mounts a layer above it says so.

import {hasCode} from '../errors/coded-error.ts'
import {type Labels, parseLabels} from './layer-request.ts'
import type {LayerUse} from './shared-layers.ts'

/** Images that one mountpoint may speak for; the oldest go first. */
const MAX_IMAGES = 8

export class ImageShares {
  /** By who says so, and the image: the mountpoints of layers that are part of it. */
  readonly #shares = new Map<string, Map<string, readonly string[]>>()
  readonly #useAt: (mountpoint: string) => LayerUse | undefined

  /** `useAt` tells what is mounted. */
  constructor(useAt: (mountpoint: string) => LayerUse | undefined) {
    this.#useAt = useAt
  }

  /** Lets the layers at `below` be had from the image that `labels` describe, until `remove(by)`. */
  add(by: string, labels: Labels, below: readonly string[]): void {
    const reference = referenceIn(labels)
    if (reference === undefined || below.length === 0) return
    const images = this.#shares.get(by) ?? new Map<string, readonly string[]>()
    this.#shares.set(by, images)
    images.delete(reference)
    images.set(reference, below)
    for (const mountpoint of below) this.#addSource(mountpoint, by, reference)
    const [oldest] = images.keys()
    if (images.size > MAX_IMAGES && oldest !== undefined) this.#removeImage(by, oldest)
  }

  /** Something has been mounted: it gets the images that are known to have it. */
  mounted(mountpoint: string): void {
    for (const [by, images] of this.#shares) {
      for (const [reference, below] of images) {
        if (below.includes(mountpoint)) this.#addSource(mountpoint, by, reference)
      }
    }
  }

  /** Forgets what `by` has said. */
  remove(by: string): void {
    for (const reference of [...(this.#shares.get(by)?.keys() ?? [])]) this.#removeImage(by, reference)
    this.#shares.delete(by)
  }

  /** Images, as their users named them. */
  references(): string[] {
    return [...this.#shares.values()].flatMap(images => [...images.keys()])
  }

  #removeImage(by: string, reference: string): void {
    const images = this.#shares.get(by)
    for (const mountpoint of images?.get(reference) ?? []) {
      this.#useAt(mountpoint)?.layer.sources.remove(ownerOf(by, reference))
    }
    images?.delete(reference)
  }

  /** Under the digest that it was mounted by: the other image calls it the same, or does not have it. */
  #addSource(mountpoint: string, by: string, reference: string): void {
    const use = this.#useAt(mountpoint)
    const size = use?.layer.blobs.get(use.request.digest)
    if (use && size !== undefined)
      use.layer.sources.add(ownerOf(by, reference), {...use.request, reference}, size)
  }
}

function ownerOf(by: string, reference: string): string {
  return `${by} ${reference}`
}

/** The image that labels describe; undefined when they describe none. */
function referenceIn(labels: Labels): string | undefined {
  try {
    return parseLabels(labels).reference
  } catch (error) {
    if (hasCode(error, 'unsupported', 'invalid-argument')) return undefined
    throw error
  }
}
