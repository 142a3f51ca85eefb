// The TOC of a layer that keeps it outside, wherever in a store it is: only the layer's digest is known.

import {CodedError, hasCode} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Digest} from '../oci/digest.ts'
import type {Store} from '../oci/image-store.ts'
import {openTocImage, TOC_TAG_SUFFIX} from './toc-image.ts'

/** The TOC's JSON, from the first image of TOCs that has it. Throws `not-found`. */
export async function findToc(store: Store, layer: Digest, options: CallOptions): Promise<Uint8Array> {
  for (const {name, target} of await store.images.list(options)) {
    if (!name.endsWith(TOC_TAG_SUFFIX)) continue
    const tocs = openTocImage({
      name,
      content: store.content,
      resolve: async () => target,
      [Symbol.asyncDispose]: async () => {},
    })
    try {
      return await tocs.tocOf(layer, options)
    } catch (error) {
      // Other images' TOCs, or an image of another kind that has such a name.
      if (!hasCode(error, 'not-found', 'corrupt', 'unsupported')) throw error
    }
  }
  throw new CodedError(
    'not-found',
    `Cannot find the TOC of ${layer} in ${store.content.name}: it is kept outside of the layer, and in no image named "…${TOC_TAG_SUFFIX}"`,
  )
}
