// The documents of an image, fetched once: what is read to follow it is also what is kept of it.

import {openBytesBlob} from '../blob/bytes-blob.ts'
import type {ContentStore} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import {MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE} from '../oci/manifest.ts'
import {isConfigMediaType, isIndexMediaType, isManifestMediaType} from '../oci/media-type.ts'
import {readWholeBlob} from './image-tree.ts'

/**
 * `content`, where each manifest, index and config is read once, whole and verified, and remembered. `onFetch` is told
 * of everything that is read, each time it is.
 */
export function rememberDocuments(
  content: ContentStore,
  onFetch: (descriptor: Descriptor) => void = () => {},
): ContentStore {
  const documents = new Map<Digest, Promise<Uint8Array>>()
  return {
    name: content.name,
    info: content.info.bind(content),
    write: content.write.bind(content),
    setLabels: content.setLabels.bind(content),
    async open(descriptor, options) {
      const limit = documentLimit(descriptor)
      const known = documents.get(descriptor.digest)
      if (!known) onFetch(descriptor)
      if (limit === undefined) return content.open(descriptor, options)
      const bytes = known ?? readWholeBlob(content, descriptor, limit, options)
      documents.set(descriptor.digest, bytes)
      // Whoever asks again after a failure tries again.
      bytes.catch(() => documents.delete(descriptor.digest))
      return openBytesBlob(await bytes, `${descriptor.digest} in ${content.name}`)
    },
  }
}

/** The size that a document of this type may have, bytes; undefined for what is no document. */
function documentLimit({mediaType}: Descriptor): number | undefined {
  if (isIndexMediaType(mediaType) || isManifestMediaType(mediaType)) return MAX_MANIFEST_SIZE
  return isConfigMediaType(mediaType) ? MAX_CONFIG_SIZE : undefined
}
