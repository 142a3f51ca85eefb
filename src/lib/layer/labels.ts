// What a snapshot's labels say about the layer to mount (stargz-snapshotter, fs/source: CRI's labels, then rpull's).

import {CodedError} from '../errors/coded-error.ts'
import {TOC_DIGEST, tocDigestOf} from '../oci/annotations.ts'
import {type Digest, isDigest} from '../oci/digest.ts'

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
const PREFETCH = 'containerd.io/snapshot/remote/stargz.prefetch'
const SKIP_VERIFY = 'containerd.io/snapshot/remote/stargz.skipverify'

/** A layer of the same image; its TOC's digest and the size of its blob, bytes, where they are told. */
export interface Neighbour {
  readonly digest: Digest
  readonly tocDigest: Digest | undefined
  /** A hint, not to be relied on. */
  readonly size: number | undefined
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
  /** The image's layers that will be asked for soon, this one possibly among them. */
  readonly neighbours: readonly Neighbour[]
  /** Bytes to prefetch where the layer has no landmark. */
  readonly prefetchSize: number | undefined
  readonly skipVerify: boolean
}

/** Reads the labels. Throws `unsupported` when they name no layer, `invalid-argument` when they name no valid one. */
export function parseLabels(labels: Labels): LayerRequest {
  const [reference, digest, layers] = labels[CRI_REFERENCE]
    ? [labels[CRI_REFERENCE], labels[CRI_DIGEST], labels[CRI_LAYERS]]
    : [labels[REFERENCE], labels[DIGEST], labels[LAYERS]]
  if (!reference || !digest) {
    throw new CodedError(
      'unsupported',
      `Cannot mount a layer lazily: its snapshot has no label "${REFERENCE}"`,
    )
  }
  const tocDigest = tocDigestOf(labels)
  const neighbours = neighboursOf(layers, labels)
  return {
    reference,
    digest: requireDigest(digest, DIGEST),
    tocDigest: tocDigest ? requireDigest(tocDigest, TOC_DIGEST) : undefined,
    size: neighbours.find(neighbour => neighbour.digest === digest)?.size,
    neighbours,
    prefetchSize: sizeOf(labels[PREFETCH]),
    skipVerify: labels[SKIP_VERIFY] !== undefined,
  }
}

function neighboursOf(layers: string | undefined, labels: Labels): Neighbour[] {
  const listOf = (text = '') => text.split(',')
  const tocDigests = listOf(labels[TOC_DIGESTS])
  const sizes = listOf(labels[SIZES])
  return listOf(layers).flatMap((digest, index) => {
    const tocDigest = tocDigests[index]
    if (!isDigest(digest)) return []
    return [{digest, tocDigest: isDigest(tocDigest) ? tocDigest : undefined, size: sizeOf(sizes[index])}]
  })
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
