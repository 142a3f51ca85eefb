// Converts an image so that what its workload reads comes first.

import type {ConversionTarget} from '../conversion/conversion-target.ts'
import {createLayerConversion, parallelLayers} from '../conversion/layer-conversion.ts'
import {type ConvertedImage, convertImage, type LayerToConvert} from '../convert/convert-image.ts'
import type {LazyFormat} from '../convert/layer-format.ts'
import {isEstargzLayer} from '../estargz/is-estargz-layer.ts'
import {type PlatformSelection, readImage} from '../image/image-tree.ts'
import type {ImageSource} from '../oci/image-store.ts'
import {isZstdChunkedLayer} from '../zstdchunked/is-zstdchunked-layer.ts'
import {findPriorities, type Priorities, type PrioritiesContext} from './priorities.ts'

export interface OptimizeOptions extends PrioritiesContext {
  readonly format: LazyFormat
  /** Turns Docker media types into OCI ones. */
  readonly oci: boolean
  readonly platforms: PlatformSelection
  readonly priorities: Priorities
  /** Keeps layers that are in the wanted format already, and of which no file comes first. */
  readonly reuse: boolean
  /** Where conversions are remembered; nowhere when undefined. */
  readonly memoryDirectory: string | undefined
}

/**
 * Optimizes an image and publishes the result. What the source's name stands for is asked once: the image that runs is the
 * one that is converted, even if the name moves on meanwhile.
 */
export async function optimizeImage(
  source: ImageSource,
  target: Pick<ConversionTarget, 'image' | 'beforePublish'>,
  options: OptimizeOptions,
): Promise<ConvertedImage> {
  const {format, oci, platforms, onProgress, signal, say} = options
  const tree = await readImage(source, platforms, options)
  const {content} = source
  const layers = createLayerConversion(format, {
    memoryDirectory: options.memoryDirectory,
    temporaryDirectory: options.temporaryDirectory,
    maxUncompressedSize: options.maxUncompressedSize,
    say,
    prioritizedIn: await findPriorities(options.priorities, {content, tree}, options),
    isReusable: options.reuse ? layer => isInFormat(layer, format) : undefined,
    onReuse: layer => say(`reusing "${layer.descriptor.digest}" without conversion`),
  })
  return convertImage(source, target.image, {
    platforms,
    tree,
    oci,
    layers,
    parallelLayers: parallelLayers(),
    beforePublish: target.beforePublish,
    onProgress,
    signal,
  })
}

async function isInFormat(
  {descriptor, content, signal}: LayerToConvert,
  format: LazyFormat,
): Promise<boolean> {
  await using blob = await content.open(descriptor, {signal})
  return format.kind === 'zstdchunked'
    ? await isZstdChunkedLayer(blob, descriptor, {dialect: format.dialect, signal})
    : await isEstargzLayer(blob, descriptor, {signal})
}
