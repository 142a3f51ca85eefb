// The layer conversion that makes lazily readable layers of any format: which paths come first, what is kept as it is,
// what was converted before.

import {createHash} from 'node:crypto'
import type {BulkCodec} from '../compression/codec.ts'
import type {Compressor} from '../compression/layer-format.ts'
import {DEFAULT_CHUNK_SIZE} from '../estargz/plan-layer.ts'
import {layerMediaType} from '../oci/media-type.ts'
import type {ConversionCache} from './conversion-cache.ts'
import type {LayerConversion, LayerResult, LayerToConvert} from './convert-image.ts'
import {convertLayer} from './convert-layer.ts'
import {convertUnlessKnown, type FreshLayer} from './convert-unless-known.ts'
import {copyBlob} from './copy-image.ts'

/**
 * What comes first in a layer, in order: paths, or for globs a choice among the layer's own. `key` tells two choices
 * apart, because equal choices give equal layers.
 */
export interface Prioritized {
  readonly key: string
  readonly paths: readonly string[] | ((layerPaths: readonly string[]) => readonly string[])
}

/** What conversions into all formats have in common. */
export interface LazyConversionOptions {
  readonly codec: BulkCodec
  /** For layers that are too large for memory. */
  readonly temporaryDirectory: string
  /** Largest payload of a chunk, in bytes; 0 for the format's default. */
  readonly chunkSize: number
  readonly prioritizedIn: (layer: LayerToConvert) => Prioritized
  /** Says whether a layer that nothing is prioritised in can stay as it is (`--reuse`). */
  readonly isReusable?: ((layer: LayerToConvert) => Promise<boolean>) | undefined
  readonly onReuse?: ((layer: LayerToConvert) => void) | undefined
  readonly cache?: ConversionCache | undefined
}

/** How a format writes layers. */
export interface LazyFormat {
  readonly compressor: Compressor
  /** What tells layers of this format and these options from others. */
  readonly key: readonly (string | number)[]
  /** Least compressed size of a stream, in bytes. */
  readonly minChunkSize: number
  /** Keeps the tar, and so the DiffID, as it is, with nothing prioritised. */
  readonly lossless: boolean
}

/** Raised when the same input and options give other bytes than an earlier release did. */
const CONVERSION_VERSION = 1

/** Paths that come first in every layer alike: a record file's. */
export function samePaths(paths: readonly string[]): Prioritized {
  return {key: hashOf(JSON.stringify(paths)), paths}
}

export function lazyConversion(format: LazyFormat, options: LazyConversionOptions): LayerConversion {
  const keyOf = (layer: LayerToConvert) =>
    hashOf(
      JSON.stringify([
        CONVERSION_VERSION,
        ...format.key,
        options.codec.name,
        options.chunkSize || DEFAULT_CHUNK_SIZE,
        format.minChunkSize,
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
        return reuseLayer(layer, format)
      }
      return convertUnlessKnown(layer, keyOf(layer), options.cache, () =>
        convertToFormat(layer, format, options),
      )
    },
  }
}

function hasNoPaths({paths}: Prioritized): boolean {
  return typeof paths !== 'function' && paths.length === 0
}

async function reuseLayer(layer: LayerToConvert, {compressor}: LazyFormat): Promise<LayerResult> {
  const {content, target, descriptor, diffId, signal} = layer
  await copyBlob(content, target, descriptor, {signal})
  const mediaType = layerMediaType(compressor.memberKind, layer.family)
  return {
    descriptor: {...descriptor, mediaType},
    diffId,
    reused: true,
    prioritized: {files: 0, bytes: 0, missing: []},
  }
}

async function convertToFormat(
  layer: LayerToConvert,
  {compressor, lossless, minChunkSize}: LazyFormat,
  options: LazyConversionOptions,
): Promise<FreshLayer> {
  const {descriptor, diffId, prioritized, detachedToc} = await convertLayer(layer, {
    codec: options.codec,
    compressor,
    lossless,
    target: layer.target,
    family: layer.family,
    temporaryDirectory: options.temporaryDirectory,
    prioritizedPaths: options.prioritizedIn(layer).paths,
    chunkSize: options.chunkSize || DEFAULT_CHUNK_SIZE,
    minChunkSize,
    signal: layer.signal,
    onBytes: doneBytes => layer.onBytes(doneBytes, layer.descriptor.size),
  })
  return {descriptor, diffId, prioritized, ...(detachedToc ? {detachedToc} : {})}
}

function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}
