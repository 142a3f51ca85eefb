// Checks a lazily readable layer through and through: what `image verify` says about it.

import {createDigester} from '../blob/sha256.ts'
import {windowedBlob} from '../blob/windowed-blob.ts'
import type {BulkCodec} from '../compression/codec.ts'
import {inflateRange, type Range} from '../convert/inflate-range.ts'
import {describeError, hasCode} from '../errors/coded-error.ts'
import {checkPlaces} from '../estargz/check-places.ts'
import {checkLandmark, checkTree} from '../estargz/check-tree.ts'
import {ESTARGZ} from '../estargz/decompressor.ts'
import type {Finding} from '../estargz/finding.ts'
import {type OpenLayer, openLayer, readFooter} from '../estargz/open-layer.ts'
import {mapOrdered} from '../io/ordered-map.ts'
import {tocDigestOf, UNCOMPRESSED_SIZE} from '../oci/annotations.ts'
import type {BlobSource, CallOptions} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import {TarScanner} from '../tar/scanner.ts'
import type {TarEntry} from '../tar/tar-entry.ts'
import {checkTarSplit} from '../zstdchunked/check-tar-split.ts'
import {parsePositions} from '../zstdchunked/positions.ts'
import {chunksOf, createChunkChecker} from './check-chunks.ts'
import {checkPlan} from './check-plan.ts'

export interface VerifyLayerOptions extends CallOptions {
  readonly codec: BulkCodec
  /** What the image config says the decompressed layer's digest is. */
  readonly diffId?: Digest | undefined
  /** The TOC of a layer that keeps it outside. */
  readonly externalToc?: Uint8Array | undefined
  /** Bytes of the blob verified so far. */
  readonly onBytes?: ((doneBytes: number) => void) | undefined
}

export interface VerifiedLayer {
  /** Everything that is wrong; empty for a sound layer. */
  readonly findings: readonly Finding[]
  /** The format that the footer names; undefined when there is none to read. */
  readonly format: string | undefined
  readonly counts: {readonly files: number; readonly chunks: number}
}

/** After this many findings of a layer, more would tell nobody anything. */
const MAX_FINDINGS = 100
/** Compressed bytes read ahead. */
const WINDOW_SIZE = 16 << 20
/** What a stream under way takes besides its bytes. */
const RANGE_COST = 4 << 10

/**
 * Verifies a whole layer: blob digest, footer, TOC digest and sense, every chunk and file against its digest, the tar
 * against the TOC, DiffID, landmark, whiteouts. What is wrong with the layer is a finding; only errors of the blob's
 * source, and aborts, are thrown.
 */
export async function verifyLayer(
  source: BlobSource,
  descriptor: Descriptor,
  options: VerifyLayerOptions,
): Promise<VerifiedLayer> {
  const findings: Finding[] = []
  // The streams of a layer are small, and all of them are read.
  const blob = windowedBlob(source)
  const layer = await openOrReport(blob, descriptor, findings, options)
  const contents = await checkContents(blob, layer, findings, options)
  checkDigests(descriptor, contents, findings, options)
  if (layer) {
    const files = layer.filesAndLandmarks
    if (contents.isWhole) findings.push(...checkTree(layer.allFiles, contents.entries, contents.streamStarts))
    if (contents.isWhole) {
      findings.push(...checkPlan(descriptor, {...contents, dataEnd: layer.dataEnd}))
    }
    if (layer.landmark || mustHaveLandmark(layer, descriptor)) findings.push(...checkLandmark(files))
    findings.push(...(await checkTarSplitOf(layer, descriptor, contents, options)))
  }
  if (contents.isWhole) findings.push(...checkPlaces(contents.entries))
  const chunks = layer ? chunksOf(layer).length : 0
  return {
    findings: findings.slice(0, MAX_FINDINGS),
    format: layer?.decompressor.name,
    counts: {files: layer?.files.size ?? 0, chunks},
  }
}

/** zstd:chunked layers that Podman 5 reads have one. */
async function checkTarSplitOf(
  {blob, toc}: OpenLayer,
  {annotations = {}}: Descriptor,
  contents: Contents,
  {signal}: VerifyLayerOptions,
): Promise<readonly Finding[]> {
  const position = parsePositions(annotations)?.tarSplit
  if (!position) return []
  const tar = contents.isWhole ? {entries: contents.entries, size: contents.uncompressedSize} : undefined
  return checkTarSplit(blob, {position, digest: toc.tarSplitDigest, tar, signal})
}

/** A layer that keeps its DiffID, is older than landmarks, or is Podman's, has none. */
function mustHaveLandmark({decompressor}: OpenLayer, {annotations}: Descriptor): boolean {
  return (
    decompressor === ESTARGZ || (decompressor.memberKind === 'zstd' && tocDigestOf(annotations) !== undefined)
  )
}

async function openOrReport(
  blob: BlobSource,
  descriptor: Descriptor,
  findings: Finding[],
  options: VerifyLayerOptions,
): Promise<OpenLayer | undefined> {
  const expected = tocDigestOf(descriptor.annotations)
  const {signal, externalToc} = options
  const opening = {signal, externalToc, where: descriptor.digest, annotations: descriptor.annotations}
  let kind: Finding['kind'] = 'footer'
  try {
    const {tocChecksum} = await readFooter(blob, opening)
    kind = 'toc'
    const layer = await openLayer(blob, opening)
    if (expected === undefined) {
      // Podman's manifests vouch for the compressed TOC instead, and that has been checked.
      if (tocChecksum !== undefined) return layer
      findings.push({kind: 'toc-digest', message: 'The manifest does not have the digest of the TOC'})
    } else if (layer.tocDigest !== expected) {
      const message = `The TOC has the digest ${layer.tocDigest}, but the manifest says ${expected}`
      findings.push({kind: 'toc-digest', message})
    }
    return layer
  } catch (error) {
    if (!hasCode(error, 'corrupt', 'unsupported', 'not-found')) throw error
    findings.push({kind, message: describeError(error)})
    return undefined
  }
}

/** What reading the whole blob brought. */
interface Contents {
  readonly digest: Digest
  readonly size: number
  readonly diffId: Digest
  readonly uncompressedSize: number
  readonly entries: readonly TarEntry[]
  /** Where in the tar each stream starts, by its offset in the blob. */
  readonly streamStarts: ReadonlyMap<number, number>
  /** Whether everything could be decompressed, so that what is missing is missing indeed. */
  readonly isWhole: boolean
}

/** Reads the blob once from start to end, stream by stream. */
async function checkContents(
  blob: BlobSource,
  layer: OpenLayer | undefined,
  findings: Finding[],
  {codec, signal, onBytes}: VerifyLayerOptions,
): Promise<Contents> {
  const blobDigester = createDigester()
  const tar = createTarChecker(findings)
  const chunks = createChunkChecker(layer, findings)
  const streamStarts = new Map<number, number>()
  let isWhole = layer !== undefined
  const read = async (range: Range) => {
    signal?.throwIfAborted()
    const bytes = await blob.read(range.offset, range.size, {signal})
    return {
      range,
      bytes,
      inflated: layer && (await inflateRange(layer.decompressor.memberKind, bytes, codec)),
    }
  }
  const ranges = mapOrdered(rangesOf(blob, layer), read, {
    weightOf: ({size}) => size + RANGE_COST,
    maxWeight: WINDOW_SIZE,
  })
  for await (const {range, bytes, inflated} of ranges) {
    blobDigester.update(bytes)
    onBytes?.(range.offset + range.size)
    if (inflated === undefined) continue
    if (typeof inflated === 'string') {
      isWhole = false
      findings.push({kind: 'chunk', message: `The stream at byte ${range.offset} is damaged: ${inflated}`})
      continue
    }
    streamStarts.set(range.offset, tar.size())
    tar.push(inflated)
    chunks.check(range.offset, inflated)
  }
  chunks.finish()
  return {
    digest: blobDigester.digest(),
    size: blob.size,
    ...tar.finish(isWhole),
    streamStarts,
    isWhole: isWhole && tar.isSound(),
  }
}

/** The blob cut where streams start. Without a TOC it is cut anywhere, just to be hashed. */
function* rangesOf(blob: BlobSource, layer: OpenLayer | undefined): Generator<Range> {
  const starts = new Set([0])
  if (layer) {
    for (const {chunk} of chunksOf(layer)) starts.add(chunk.offset)
    starts.add(layer.dataEnd)
  } else {
    for (let offset = 0; offset < blob.size; offset += WINDOW_SIZE / 4) starts.add(offset)
  }
  const sorted = Float64Array.from(starts).sort()
  for (const [index, offset] of sorted.entries()) {
    const size = (sorted[index + 1] ?? blob.size) - offset
    if (size > 0) yield {offset, size}
  }
}

function checkDigests(
  descriptor: Descriptor,
  contents: Contents,
  findings: Finding[],
  {diffId}: VerifyLayerOptions,
): void {
  if (contents.size !== descriptor.size || contents.digest !== descriptor.digest) {
    const message = `The blob is ${contents.digest} of ${contents.size} bytes, not ${descriptor.digest} of ${descriptor.size}`
    findings.unshift({kind: 'blob', message})
  }
  if (!contents.isWhole) return
  if (diffId !== undefined && contents.diffId !== diffId) {
    const message = `The layer decompresses to ${contents.diffId}, but the image config says ${diffId}`
    findings.push({kind: 'diff-id', message})
  }
  const size = descriptor.annotations?.[UNCOMPRESSED_SIZE]
  if (size !== undefined && size !== String(contents.uncompressedSize)) {
    const message = `The layer decompresses to ${contents.uncompressedSize} bytes, but the manifest says ${size}`
    findings.push({kind: 'uncompressed-size', message})
  }
}

/** Scans and hashes the tar; the first thing that is wrong with it ends the scan but not the hash. */
function createTarChecker(findings: Finding[]) {
  const entries: TarEntry[] = []
  const scanner = new TarScanner(entry => entries.push(entry))
  const digester = createDigester()
  let size = 0
  let isSound = true
  function guard(scan: () => void): void {
    if (!isSound) return
    try {
      scan()
    } catch (error) {
      isSound = false
      findings.push({kind: 'tar', message: describeError(error)})
    }
  }
  return {
    size: () => size,
    isSound: () => isSound,
    push(bytes: Uint8Array): void {
      size += bytes.length
      digester.update(bytes)
      guard(() => scanner.push(bytes))
    },
    finish(isWhole: boolean) {
      if (isWhole) guard(() => void scanner.end())
      return {entries, diffId: digester.digest(), uncompressedSize: size}
    },
  }
}
