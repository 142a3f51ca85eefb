// Layers that cannot be mounted lazily, as directories.

import {rm} from 'node:fs/promises'
import {join} from 'node:path'
import type {UnpackedLayers} from '../../lib/layer-store/stored-image.ts'
import {hexOf} from '../../lib/oci/digest.ts'
import type {ImageSource} from '../../lib/oci/image-store.ts'
import {filesOfUnpacked, unpackLayer} from '../../lib/rootfs/unpack-layer.ts'

export function createUnpackedLayers(
  directory: string,
  openImage: (reference: string) => ImageSource,
): UnpackedLayers {
  return {
    unpack: async (reference, {digest, diffId, mediaType, compressedSize: size}, call) => {
      await using source = openImage(reference)
      const layer = {digest, mediaType, size}
      return await unpackLayer({content: source.content, layer, diffId}, join(directory, hexOf(diffId)), call)
    },
    directoryOf: diffId => filesOfUnpacked(join(directory, hexOf(diffId))),
    remove: diffId => rm(join(directory, hexOf(diffId)), {recursive: true, force: true}),
  }
}
