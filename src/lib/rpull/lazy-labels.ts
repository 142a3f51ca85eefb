// The labels by which a remote snapshotter learns which layer it is asked for: those of containerd's CRI plugin and
// transfer service, and those of `ctr-remote rpull`. Snapshotters read one set or the other, so both are sent.

import {TOC_DIGEST, tocDigestOf} from '../oci/annotations.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import type {StartCommand} from '../oci/start-command.ts'
import {PREFETCH_PLAN} from '../prefetch/prefetch-plan.ts'

const CRI = 'containerd.io/snapshot/cri.'
const STARGZ = 'containerd.io/snapshot/remote/stargz.'
const URLS = 'containerd.io/snapshot/remote/urls'

/** On a snapshot that its snapshotter mounted by itself. */
const REMOTE = 'containerd.io/snapshot/remote'

/** What starts the annotations of zstd:chunked layers. */
const ZSTD_CHUNKED_PREFIXES = ['io.containers.zstd-chunked.', 'io.github.containers.zstd-chunked.']

/** Bytes to fetch early from a layer that does not say it itself; what `rpull` has always asked for. */
const PREFETCH_SIZE = 10 * 1024 * 1024

/** In the list of TOC digests, for a layer without. */
const NO_TOC_DIGEST = '-'

/** What containerd accepts of a label, key and value together, bytes. */
const MAX_LABEL_SIZE = 4096

/** Bytes of all plans that go with one snapshot, which containerd keeps. */
const MAX_PLANS_SIZE = 32 << 10

/** The image that a layer belongs to. */
export interface LazyImage {
  /** Canonical: the snapshotter asks the registry for it. */
  readonly reference: string
  readonly manifestDigest: Digest
  readonly layers: readonly Descriptor[]
  /** Whether the layers may be mounted without a verified TOC. */
  readonly skipContentVerify: boolean
  /** Where it is known already. */
  readonly command?: StartCommand
}

/** The labels for one layer of an image, by its place, bottom first. */
export function lazyLabels(image: LazyImage, index: number): Readonly<Record<string, string>> {
  const layer = image.layers[index]!
  // A snapshotter looks at these at once, so that the layers above cost no round trip of their own.
  const neighbours = image.layers.slice(index)
  return {
    [`${CRI}image-ref`]: image.reference,
    [`${CRI}manifest-digest`]: image.manifestDigest,
    [`${CRI}layer-digest`]: layer.digest,
    [`${CRI}image-layers`]: listThatFits(`${CRI}image-layers`, digestsOf(neighbours)),
    [`${STARGZ}reference`]: image.reference,
    [`${STARGZ}digest`]: layer.digest,
    [`${STARGZ}layers`]: listThatFits(`${STARGZ}layers`, digestsOf(neighbours)),
    // Ours: with these a snapshotter can open and prefetch all layers at once, verify them, and guess how large TOCs are.
    [`${STARGZ}toc-digests`]: listThatFits(
      `${STARGZ}toc-digests`,
      neighbours.map(({annotations}) => tocDigestOf(annotations) ?? NO_TOC_DIGEST),
    ),
    [`${STARGZ}sizes`]: listThatFits(
      `${STARGZ}sizes`,
      neighbours.map(({size}) => String(size)),
    ),
    [`${STARGZ}prefetch`]: String(PREFETCH_SIZE),
    ...urlLabels(neighbours),
    ...planLabels(neighbours),
    ...(image.command ? startLabel(image.command) : {}),
    ...(image.skipContentVerify ? {[`${STARGZ}skipverify`]: 'true'} : {}),
  }
}

/** Whether a snapshot with these labels is mounted lazily. */
export function isLazySnapshot(labels: Readonly<Record<string, string>>): boolean {
  return labels[REMOTE] !== undefined
}

/** Whether a layer says that it can be read lazily. */
export function saysLazy({annotations = {}}: Descriptor): boolean {
  return Object.keys(annotations).some(
    key => key === TOC_DIGEST || ZSTD_CHUNKED_PREFIXES.some(prefix => key.startsWith(prefix)),
  )
}

/** Where else the layer is (`urls` of its descriptor), and the same of its neighbours by their place in the list. */
function urlLabels(neighbours: readonly Descriptor[]): Record<string, string> {
  const labels: Record<string, string> = {}
  for (const [index, {urls = []}] of neighbours.entries()) {
    const own = listThatFits(URLS, urls)
    if (index === 0 && own !== '') labels[URLS] = own
    const key = `${URLS}.${index}`
    const list = listThatFits(key, urls)
    if (list !== '') labels[key] = list
  }
  return labels
}

/**
 * What a start reads of the layers above, by their place in the list, so that it is fetched in its order over all layers at once.
 * The layer's own plan is an annotation that snapshots inherit.
 */
function planLabels(neighbours: readonly Descriptor[]): Record<string, string> {
  const labels: Record<string, string> = {}
  let left = MAX_PLANS_SIZE
  for (const [index, {annotations}] of neighbours.entries()) {
    const plan = annotations?.[PREFETCH_PLAN]
    const key = `${STARGZ}plan.${index}`
    if (index === 0 || plan === undefined || key.length + plan.length > MAX_LABEL_SIZE) continue
    left -= plan.length
    if (left < 0) break
    labels[key] = plan
  }
  return labels
}

/** What the image runs: the snapshotter fetches that while the container is being made. */
function startLabel(command: StartCommand): Record<string, string> {
  const [key, value] = [`${STARGZ}start`, JSON.stringify(command)]
  return Buffer.byteLength(key) + Buffer.byteLength(value) > MAX_LABEL_SIZE ? {} : {[key]: value}
}

function digestsOf(layers: readonly Descriptor[]): string[] {
  return layers.map(({digest}) => digest)
}

/** The first of `items`, separated by commas, as many as a label can hold. */
function listThatFits(key: string, items: readonly string[]): string {
  let list = ''
  for (const item of items) {
    const longer = list === '' ? item : `${list},${item}`
    if (Buffer.byteLength(key) + Buffer.byteLength(longer) > MAX_LABEL_SIZE) break
    list = longer
  }
  return list
}
