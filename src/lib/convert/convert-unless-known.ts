// A layer conversion that asks first whether it was done before, and whether the target still has what came of it.

import {digestOf} from '../blob/sha256.ts'
import {MAX_COMPRESSED_TOC_SIZE} from '../estargz/layer-reader.ts'
import {readWholeBlob} from '../image/image-tree.ts'
import {OCI_LAYER_GZIP} from '../oci/media-type.ts'
import type {ConversionCache, ConversionFacts} from './conversion-cache.ts'
import type {LayerResult, LayerToConvert} from './convert-image.ts'

/** What a conversion gives, before anybody asks whether it was needed. */
export type FreshLayer = Omit<LayerResult, 'reused'>

/** Converts `layer`, or finds it again. `key` covers everything that the result depends on. */
export async function convertUnlessKnown(
  layer: LayerToConvert,
  key: string,
  cache: ConversionCache | undefined,
  convert: () => Promise<FreshLayer>,
): Promise<LayerResult> {
  const facts = await cache?.find(key)
  const known = facts && (await findAgain(layer, facts))
  if (known) return {...known, reused: true}
  const fresh = await convert()
  await cache?.remember(key, factsOf(fresh))
  return {...fresh, reused: false}
}

/** What is known of a layer, when the target has it and, where its TOC is outside, that too. */
async function findAgain(layer: LayerToConvert, facts: ConversionFacts): Promise<FreshLayer | undefined> {
  const {target, signal} = layer
  const {detachedToc, ...known} = facts
  if (!(await target.info(known.descriptor, {signal}))) return undefined
  if (!detachedToc) return known
  const descriptor = {mediaType: OCI_LAYER_GZIP, ...detachedToc}
  if (!(await target.info(descriptor, {signal}))) return undefined
  return {
    ...known,
    detachedToc: await readWholeBlob(target, descriptor, MAX_COMPRESSED_TOC_SIZE, {signal}),
  }
}

function factsOf({descriptor, diffId, prioritized, detachedToc}: FreshLayer): ConversionFacts {
  return {
    descriptor,
    diffId,
    ...(prioritized ? {prioritized} : {}),
    ...(detachedToc ? {detachedToc: {digest: digestOf(detachedToc), size: detachedToc.length}} : {}),
  }
}
