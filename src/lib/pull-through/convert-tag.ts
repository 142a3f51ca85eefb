// What is converted of an image that a tag stands for, when it is pulled or pushed.

import {isAttestation} from '../image/image-tree.ts'
import type {Digest} from '../oci/digest.ts'
import {matchesPlatform} from '../oci/platform.ts'
import type {FoundDocument} from './documents.ts'
import {type Asker, convertFor, type PullThrough} from './pull-through.ts'

/** Has the image converted, of an index the platforms that are wanted. Resolves when that has ended, however it has. */
export async function convertTag(
  through: PullThrough,
  asker: Asker,
  found: FoundDocument,
  tag: string | undefined,
): Promise<void> {
  const chosen = manifestsToConvert(through, found)
  const images = await Promise.all(chosen.map(digest => convertFor(through, asker, digest)))
  const converted = images.filter(image => image !== undefined)
  if (tag !== undefined && converted.length > 0 && converted.length === chosen.length) {
    through.copies?.offer({source: asker.source, tag, found, images: converted})
  }
}

function manifestsToConvert({platforms}: PullThrough, {descriptor, document}: FoundDocument): Digest[] {
  if (document.kind === 'manifest') return [descriptor.digest]
  const chosen = document.index.manifests.filter(
    entry =>
      !isAttestation(entry) &&
      (platforms === 'all' ||
        platforms.some(wanted => entry.platform && matchesPlatform(wanted, entry.platform))),
  )
  return chosen.map(({digest}) => digest)
}
