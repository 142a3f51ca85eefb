// An index with the converted form of those of its manifests that have one.

import {isAttestation} from '../image/image-tree.ts'
import {type Descriptor, withContent} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import {encodeJson, type ImageIndex, toOciMediaType} from '../oci/manifest.ts'

/** BuildKit's annotation that says which manifest an attestation is about. */
const REFERENCE_DIGEST = 'vnd.docker.reference.digest'

/**
 * The index to serve in place of `index`; undefined when nothing of it is converted. Attestations go with the manifest that
 * they vouch for: the converted one has other bytes.
 */
export function composeIndex(
  index: ImageIndex,
  converted: (manifest: Digest) => Descriptor | undefined,
): {readonly mediaType: string; readonly bytes: Uint8Array} | undefined {
  const replaced = new Map(
    index.manifests.flatMap(({digest}) => {
      const descriptor = converted(digest)
      return descriptor ? [[digest as string, descriptor] as const] : []
    }),
  )
  if (replaced.size === 0) return undefined
  const manifests = index.manifests
    .filter(entry => !isAttestation(entry) || !replaced.has(entry.annotations?.[REFERENCE_DIGEST] ?? ''))
    .map(entry => withReplacement(entry, replaced.get(entry.digest)))
  const mediaType = toOciMediaType(index.mediaType)
  return {mediaType, bytes: encodeJson({...index, mediaType, manifests})}
}

function withReplacement(entry: Descriptor, converted: Descriptor | undefined): Descriptor {
  return converted ? withContent(entry, converted) : entry
}
