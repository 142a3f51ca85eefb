// The layer conversion that makes eStargz: which paths come first, what is kept as it is, what was converted before.

import {createHash} from 'node:crypto'
import type {BulkCodec} from '../compression/codec.ts'
import {estargzCompressor, externalTocCompressor} from '../estargz/compressor.ts'
import {DEFAULT_CHUNK_SIZE} from '../estargz/plan-layer.ts'
import {layerMediaType} from '../oci/media-type.ts'
import type {ConversionCache, ConversionFacts} from './conversion-cache.ts'
import type {LayerConversion, LayerResult, LayerToConvert} from './convert-image.ts'
import {convertLayer} from './convert-layer.ts'
import {copyBlob} from './copy-image.ts'

/**
 * What comes first in a layer, in order: paths, or for globs a choice among the layer's own. `key` tells two choices
 * apart, because equal choices give equal layers.
 */
export interface Prioritized {
  readonly key: string
  readonly paths: readonly string[] | ((layerPaths: readonly string[]) => readonly string[])
}

export interface EstargzConversionOptions {
  readonly codec: BulkCodec
  /** For layers that are too large for memory. */
  readonly temporaryDirectory: string
  /** On zlib's scale, 0–9, or libdeflate's own 10–12. */
  readonly level: number
  /** Largest payload of a chunk, and least compressed size of a stream, in bytes; 0 for the format's default. */
  readonly chunkSize: number
  readonly minChunkSize: number
  /**
   * Where the TOC goes: into the layer, or outside, where the caller must put what `detachedToc` of each result holds;
   * `outside-lossless` keeps the tar, and so the DiffID, as it is, with nothing prioritised. Default: inside.
   */
  readonly toc?: 'inside' | 'outside' | 'outside-lossless'
  readonly prioritizedIn: (layer: LayerToConvert) => Prioritized
  /** Says whether a layer that nothing is prioritised in can stay as it is (`--reuse`). */
  readonly isReusable?: ((layer: LayerToConvert) => Promise<boolean>) | undefined
  readonly onReuse?: ((layer: LayerToConvert) => void) | undefined
  readonly cache?: ConversionCache | undefined
}

/** Raised when the same input and options give other bytes than an earlier release did. */
const CONVERSION_VERSION = 1

/**
 * libdeflate's level for each of zlib's: the lowest whose output is no larger. libdeflate 6 makes smaller output than
 * zlib or Go at 9, at four times the speed (docs/performance.md); its own levels above 9 stay what they are.
 */
const LIBDEFLATE_LEVELS = [0, 1, 2, 3, 4, 5, 6, 6, 6, 6, 10, 11, 12]

/** Paths that come first in every layer alike: a record file's. */
export function samePaths(paths: readonly string[]): Prioritized {
  return {key: hashOf(JSON.stringify(paths)), paths}
}

export function estargzConversion(options: EstargzConversionOptions): LayerConversion {
  const level = LIBDEFLATE_LEVELS[options.level] ?? options.level
  const toc = options.toc ?? 'inside'
  // A layer found again would come without its TOC.
  const cache = toc === 'inside' ? options.cache : undefined
  const keyOf = (layer: LayerToConvert) =>
    hashOf(
      JSON.stringify([
        CONVERSION_VERSION,
        'estargz',
        options.codec.name,
        level,
        options.chunkSize || DEFAULT_CHUNK_SIZE,
        options.minChunkSize,
        ...(toc === 'inside' ? [] : [toc]),
        layer.family,
        layer.descriptor.digest,
        layer.diffId,
        layer.descriptor.annotations ?? {},
        options.prioritizedIn(layer).key,
      ]),
    )
  return {
    key: keyOf,
    convert: async layer => {
      if (
        options.isReusable &&
        hasNoPaths(options.prioritizedIn(layer)) &&
        (await options.isReusable(layer))
      ) {
        options.onReuse?.(layer)
        return reuseLayer(layer)
      }
      const key = keyOf(layer)
      const known = await cache?.find(key)
      if (known && (await layer.target.info(known.descriptor, layer))) return {...known, reused: true}
      const {detachedToc, ...facts} = await convertToEstargz(layer, level, options)
      await cache?.remember(key, facts)
      return {...facts, reused: false, ...(detachedToc ? {detachedToc} : {})}
    },
  }
}

function hasNoPaths({paths}: Prioritized): boolean {
  return typeof paths !== 'function' && paths.length === 0
}

async function reuseLayer(layer: LayerToConvert): Promise<LayerResult> {
  const {content, target, descriptor, diffId, signal} = layer
  await copyBlob(content, target, descriptor, {signal})
  const mediaType = layerMediaType('gzip', layer.family)
  return {
    descriptor: {...descriptor, mediaType},
    diffId,
    reused: true,
    prioritized: {files: 0, bytes: 0, missing: []},
  }
}

async function convertToEstargz(
  layer: LayerToConvert,
  level: number,
  options: EstargzConversionOptions,
): Promise<ConversionFacts & Pick<LayerResult, 'detachedToc'>> {
  const lossless = options.toc === 'outside-lossless'
  const isOutside = options.toc === 'outside' || lossless
  const {descriptor, diffId, prioritized, detachedToc} = await convertLayer(layer, {
    codec: options.codec,
    compressor: isOutside ? externalTocCompressor(level, {lossless}) : estargzCompressor(level),
    lossless,
    target: layer.target,
    family: layer.family,
    temporaryDirectory: options.temporaryDirectory,
    prioritizedPaths: options.prioritizedIn(layer).paths,
    chunkSize: options.chunkSize || DEFAULT_CHUNK_SIZE,
    minChunkSize: options.minChunkSize,
    signal: layer.signal,
    onBytes: doneBytes => layer.onBytes(doneBytes, layer.descriptor.size),
  })
  return {descriptor, diffId, prioritized, ...(detachedToc ? {detachedToc} : {})}
}

function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}
