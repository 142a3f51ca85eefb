// What a snapshot's labels say about the layer to mount (stargz-snapshotter, fs/source: CRI's labels, then rpull's).

import {CodedError} from '../errors/coded-error.ts'
import {TOC_DIGEST, tocDigestOf} from '../oci/annotations.ts'
import {type Digest, isDigest} from '../oci/digest.ts'
import type {StartCommand} from '../oci/start-command.ts'
import {PREFETCH_PLAN} from '../prefetch/prefetch-plan.ts'

export type Labels = Readonly<Record<string, string>>

const CRI_REFERENCE = 'containerd.io/snapshot/cri.image-ref'
const CRI_DIGEST = 'containerd.io/snapshot/cri.layer-digest'
const CRI_LAYERS = 'containerd.io/snapshot/cri.image-layers'
const REFERENCE = 'containerd.io/snapshot/remote/stargz.reference'
const DIGEST = 'containerd.io/snapshot/remote/stargz.digest'
const LAYERS = 'containerd.io/snapshot/remote/stargz.layers'
/** Of our rpull: the TOC digests of `LAYERS`, in their order; `-` for a layer without. */
const TOC_DIGESTS = 'containerd.io/snapshot/remote/stargz.toc-digests'
/** Likewise: the sizes of their blobs. */
const SIZES = 'containerd.io/snapshot/remote/stargz.sizes'
/** Likewise, with a place in `LAYERS` behind it: the prefetch plan of the layer there. */
const PLAN = 'containerd.io/snapshot/remote/stargz.plan.'
const PREFETCH = 'containerd.io/snapshot/remote/stargz.prefetch'
/** Likewise, of the topmost layer: the image's entrypoint and command, and the PATH of its environment, as JSON. */
const START = 'containerd.io/snapshot/remote/stargz.start'
const SKIP_VERIFY = 'containerd.io/snapshot/remote/stargz.skipverify'
/** Where else the layer is, separated by commas; followed by `.0`, `.1`, …: the same of `LAYERS`, in their order. */
const URLS = 'containerd.io/snapshot/remote/urls'

/** A layer of the same image; its TOC's digest and the size of its blob, bytes, where they are told. */
export interface Neighbour {
  readonly digest: Digest
  readonly tocDigest: Digest | undefined
  /** A hint, not to be relied on. */
  readonly size: number | undefined
  /** Likewise. */
  readonly prefetchPlan: string | undefined
  /** Where else the layer is. */
  readonly urls: readonly string[]
}

/** A layer to mount, as its snapshot's labels describe it. */
export interface LayerRequest {
  /** The image, as the user named it. */
  readonly reference: string
  /** Of the layer's blob. */
  readonly digest: Digest
  /** Of its TOC; without it nothing of the layer can be verified. */
  readonly tocDigest: Digest | undefined
  /** Of the blob, bytes, where it is told: a hint. */
  readonly size: number | undefined
  /** Where else the layer is: the `urls` of its descriptor. */
  readonly urls: readonly string[]
  /** The image's layers that will be asked for soon, this one possibly among them. */
  readonly neighbours: readonly Neighbour[]
  /** Bytes to prefetch where the layer has no landmark. */
  readonly prefetchSize: number | undefined
  /** What a start reads of the layer, as its manifest says it, see `parsePrefetchPlan`; not to be relied on. */
  readonly prefetchPlan: string | undefined
  /** Whether the layer is likely to have a plan, because another of its image has, which is told when it is asked for. */
  readonly isPlanAwaited: boolean
  readonly skipVerify: boolean
  /** What a container of the image runs unless told otherwise, where it is told. */
  readonly command: StartCommand | undefined
}

/** A set of labels that names a layer: CRI's, or those of rpull. */
interface LabelSet {
  readonly reference: string
  readonly digest: string
  readonly layers: string
}

/** In the order in which they are believed. */
const SETS: readonly LabelSet[] = [
  {reference: CRI_REFERENCE, digest: CRI_DIGEST, layers: CRI_LAYERS},
  {reference: REFERENCE, digest: DIGEST, layers: LAYERS},
]

/** The digest of the layer that labels name, if they name one. */
export function layerDigestIn(labels: Labels): string | undefined {
  const set = SETS.find(({reference, digest}) => labels[reference] && labels[digest])
  return set && labels[set.digest]
}

/**
 * Reads the labels: the first set of which all is there, because builders give parts of the other. Throws `unsupported` when
 * they name no layer, `invalid-argument` when they name no valid one.
 */
export function parseLabels(labels: Labels): LayerRequest {
  const set = SETS.find(({reference, digest}) => labels[reference] && labels[digest])
  if (!set) throw new CodedError('unsupported', `Cannot mount a layer lazily: ${missingFrom(labels)}`)
  const reference = labels[set.reference]!
  const digest = labels[set.digest]!
  const layers = labels[set.layers] ?? labels[LAYERS] ?? labels[CRI_LAYERS]
  const tocDigest = tocDigestOf(labels)
  const neighbours = neighboursOf(layers, labels)
  return {
    reference,
    digest: requireDigest(digest, set.digest),
    tocDigest: tocDigest ? requireDigest(tocDigest, TOC_DIGEST) : undefined,
    size: neighbours.find(neighbour => neighbour.digest === digest)?.size,
    urls: urlsIn(labels[URLS]),
    neighbours,
    prefetchSize: sizeOf(labels[PREFETCH]),
    prefetchPlan: labels[PREFETCH_PLAN],
    isPlanAwaited: false,
    skipVerify: labels[SKIP_VERIFY] !== undefined,
    command: commandIn(labels[START]),
  }
}

/** The request for another layer of the same image, of which the labels of `request` tell little. */
export function requestForNeighbour(request: LayerRequest, neighbour: Neighbour): LayerRequest {
  return {
    ...request,
    ...neighbour,
    neighbours: [],
    isPlanAwaited: request.prefetchPlan !== undefined && neighbour.prefetchPlan === undefined,
  }
}

/** The labels that `parseLabels` reads a request from. */
export function encodeLabels(request: LayerRequest): Labels {
  const {reference, digest, tocDigest, urls, neighbours, prefetchSize, prefetchPlan, skipVerify, command} =
    request
  return {
    [REFERENCE]: reference,
    [DIGEST]: digest,
    [LAYERS]: neighbours.map(neighbour => neighbour.digest).join(),
    [TOC_DIGESTS]: neighbours.map(neighbour => neighbour.tocDigest ?? '-').join(),
    [SIZES]: neighbours.map(({size}) => size ?? '-').join(),
    ...(urls.length === 0 ? {} : {[URLS]: urls.join()}),
    ...Object.fromEntries(
      neighbours.flatMap((neighbour, index) =>
        neighbour.urls.length === 0 ? [] : [[`${URLS}.${index}`, neighbour.urls.join()]],
      ),
    ),
    ...(tocDigest === undefined ? {} : {[TOC_DIGEST]: tocDigest}),
    ...(prefetchSize === undefined ? {} : {[PREFETCH]: String(prefetchSize)}),
    ...Object.fromEntries(
      neighbours.flatMap(({prefetchPlan: plan}, index) =>
        plan === undefined ? [] : [[`${PLAN}${index}`, plan]],
      ),
    ),
    ...(prefetchPlan === undefined ? {} : {[PREFETCH_PLAN]: prefetchPlan}),
    ...(skipVerify ? {[SKIP_VERIFY]: 'true'} : {}),
    ...(command === undefined ? {} : {[START]: JSON.stringify(command)}),
  }
}

/** What a snapshot's labels lack: of the set that has something, or of both. */
function missingFrom(labels: Labels): string {
  const isBegun = ({reference, digest}: LabelSet) => Boolean(labels[reference] || labels[digest])
  const begun = SETS.some(isBegun) ? SETS.filter(isBegun) : SETS
  const lacks = begun.map(({reference, digest}) => {
    const missing = [reference, digest].filter(label => !labels[label])
    return missing.map(label => JSON.stringify(label)).join(' and ')
  })
  return `its snapshot has no label ${lacks.join(', and none ')}`
}

function neighboursOf(layers: string | undefined, labels: Labels): Neighbour[] {
  const listOf = (text = '') => text.split(',')
  const tocDigests = listOf(labels[TOC_DIGESTS])
  const sizes = listOf(labels[SIZES])
  return listOf(layers).flatMap((digest, index) => {
    const tocDigest = tocDigests[index]
    if (!isDigest(digest)) return []
    return [
      {
        digest,
        tocDigest: isDigest(tocDigest) ? tocDigest : undefined,
        size: sizeOf(sizes[index]),
        urls: urlsIn(labels[`${URLS}.${index}`]),
        prefetchPlan: labels[`${PLAN}${index}`],
      },
    ]
  })
}

function urlsIn(text = ''): readonly string[] {
  return text.split(',').filter(url => url !== '')
}

/** A hint: what is not as expected says nothing. */
function commandIn(text: string | undefined): StartCommand | undefined {
  if (text === undefined) return undefined
  try {
    const {words, path} = JSON.parse(text) as Partial<Record<keyof StartCommand, unknown>>
    const isCommand = Array.isArray(words) && words.every(word => typeof word === 'string')
    return isCommand && typeof path === 'string' ? {words, path} : undefined
  } catch {
    return undefined
  }
}

function sizeOf(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined
}

function requireDigest(value: string, label: string): Digest {
  if (isDigest(value)) return value
  throw new CodedError(
    'invalid-argument',
    `Cannot use label "${label}": ${JSON.stringify(value)} is no digest`,
  )
}
