// The layer conversion that makes lazily readable layers of any format: which paths come first, what is kept as it is,
// what was converted before.

import {createHash} from 'node:crypto'
import type {BulkCodec} from '../compression/codec.ts'
import {copyBlob} from '../copy/copy-image.ts'
import {DEFAULT_CHUNK_SIZE} from '../estargz/plan-layer.ts'
import {layerMediaType} from '../oci/media-type.ts'
import type {LayerReads} from '../prefetch/read-ranges.ts'
import type {MemoryCare} from '../tar/memory-care.ts'
import type {ConversionCache} from './conversion-cache.ts'
import type {LayerConversion, LayerResult, LayerToConvert} from './convert-image.ts'
import {convertLayer} from './convert-layer.ts'
import {convertUnlessKnown, type FreshLayer} from './convert-unless-known.ts'
import type {LazyFormat} from './layer-format.ts'
import {formatKey, type LayerWriting, layerWriting} from './layer-writing.ts'

/**
 * What comes first in a layer, in order: paths, or for globs a choice among the layer's own. `key` tells two choices
 * apart, because equal choices give equal layers.
 */
export interface Prioritized {
  readonly key: string
  readonly paths: readonly string[] | ((layerPaths: readonly string[]) => readonly string[])
  /** Which parts of files are read, where that is known. */
  readonly reads?: LayerReads | undefined
}

export interface LayerConversionOptions {
  readonly codec: BulkCodec
  /** For layers that are too large for memory. */
  readonly temporaryDirectory: string
  /** Bytes to which a layer may decompress at most; undefined for what the directory has room for. */
  readonly maxUncompressedSize?: number | undefined
  /** What comes first in layers of formats that have an order. */
  readonly prioritizedIn: (layer: LayerToConvert) => Prioritized
  /** Says whether a layer that nothing is prioritised in can stay as it is (`--reuse`). */
  readonly isReusable?: ((layer: LayerToConvert) => Promise<boolean>) | undefined
  readonly onReuse?: ((layer: LayerToConvert) => void) | undefined
  readonly memoryCare?: MemoryCare | undefined
  readonly cache?: ConversionCache | undefined
}

/** Raised when the same input and options give other bytes than an earlier release did. */
const CONVERSION_VERSION = 2

/** Paths that come first in every layer alike: a record file's. */
export function samePaths(paths: readonly string[]): Prioritized {
  return {key: hashOf(JSON.stringify(paths)), paths}
}

/** What was found to be read of one layer: its files, in order, and which parts of them, where that is known. */
export function whatWasRead(paths: readonly string[], reads: LayerReads | undefined): Prioritized {
  return reads ? {key: hashOf(JSON.stringify([paths, [...reads]])), paths, reads} : samePaths(paths)
}

export function lazyConversion(format: LazyFormat, options: LayerConversionOptions): LayerConversion {
  const writing = layerWriting(format)
  const keyOf = (layer: LayerToConvert) =>
    hashOf(
      JSON.stringify([
        CONVERSION_VERSION,
        ...formatKey(format),
        options.codec.name,
        writing.chunkSize || DEFAULT_CHUNK_SIZE,
        writing.minChunkSize ?? 0,
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
        return reuseLayer(layer, writing)
      }
      return convertUnlessKnown(layer, keyOf(layer), options.cache, () =>
        convertToFormat(layer, writing, options),
      )
    },
  }
}

function hasNoPaths({paths}: Prioritized): boolean {
  return typeof paths !== 'function' && paths.length === 0
}

async function reuseLayer(layer: LayerToConvert, {compressor}: LayerWriting): Promise<LayerResult> {
  const {content, target, descriptor, diffId, signal} = layer
  await copyBlob(content, target, descriptor, {signal})
  const mediaType = layerMediaType(compressor.memberKind, layer.family)
  return {
    descriptor: {...descriptor, mediaType},
    diffId,
    reused: true,
    prioritized: {files: 0, bytes: 0, missing: [], unmoved: [], misread: [], replaced: []},
  }
}

async function convertToFormat(
  layer: LayerToConvert,
  writing: LayerWriting,
  options: LayerConversionOptions,
): Promise<FreshLayer> {
  const wanted = options.prioritizedIn(layer)
  const {descriptor, diffId, prioritized, detachedToc} = await convertLayer(layer, {
    ...writing,
    codec: options.codec,
    target: layer.target,
    family: layer.family,
    temporaryDirectory: options.temporaryDirectory,
    maxUncompressedSize: options.maxUncompressedSize,
    prioritizedPaths: wanted.paths,
    reads: wanted.reads,
    signal: layer.signal,
    memoryCare: options.memoryCare,
    onBytes: doneBytes => layer.onBytes(doneBytes, layer.descriptor.size),
  })
  return {descriptor, diffId, prioritized, ...(detachedToc ? {detachedToc} : {})}
}

function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}
