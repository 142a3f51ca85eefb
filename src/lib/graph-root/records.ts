// The records of layers and images that containers/storage keeps as JSON (its layers.go and images.go).

import {digestOf} from '../blob/sha256.ts'
import {encodeBase64} from '../io/base64.ts'
import type {StoredImage} from '../layer-store/stored-image.ts'
import {layerIdsOf} from './layer-ids.ts'

export interface LayerRecord {
  readonly id: string
  readonly parent?: string
}

/** How a blob is compressed. */
const GZIP = 2
const ZSTD = 4

/** Of an image's layers, bottom first. */
export function layerRecordsOf({layers, created}: StoredImage): LayerRecord[] {
  const ids = layerIdsOf(layers.map(({diffId}) => diffId))
  return layers.map(({digest, diffId, compressedSize, uncompressedSize, mediaType}, index) => ({
    id: ids[index]!,
    ...(index === 0 ? {} : {parent: ids[index - 1]!}),
    created,
    'compressed-diff-digest': digest,
    'compressed-size': compressedSize,
    'diff-digest': diffId,
    'diff-size': uncompressedSize,
    compression: mediaType.endsWith('zstd') ? ZSTD : GZIP,
  }))
}

/** The documents that go with an image, by the names that they have in its record. */
export function bigDataOf({manifest, config, digest, id}: StoredImage): ReadonlyMap<string, string> {
  return new Map([
    [`manifest-${digest}`, manifest],
    ['manifest', manifest],
    [`sha256:${id}`, config],
  ])
}

/** The file of a document: names other than plain words are written in base64. */
export function bigDataFile(name: string): string {
  return /^[0-9a-zA-Z]+$/.test(name) ? name : `=${encodeBase64(Buffer.from(name))}`
}

export function imageRecordOf(image: StoredImage): unknown {
  const documents = [...bigDataOf(image)]
  return {
    id: image.id,
    digest: image.digest,
    names: image.names,
    layer: layerIdsOf(image.layers.map(({diffId}) => diffId)).at(-1),
    metadata: '{}',
    'big-data-names': documents.map(([name]) => name),
    'big-data-sizes': Object.fromEntries(documents.map(([name, text]) => [name, Buffer.byteLength(text)])),
    'big-data-digests': Object.fromEntries(documents.map(([name, text]) => [name, digestOf(text)])),
    created: image.created,
  }
}
