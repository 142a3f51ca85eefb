// Opens blobs to be sent. A store asked for a blob promises that it stays, which takes the store's lock: that is for
// pushes. A lazy mount makes thousands of reads, so the store is asked once for each blob.

import {LRUCache} from 'lru-cache'
import {hasCode} from '../errors/coded-error.ts'
import type {CallOptions, OpenBlob, StoredContent} from '../oci/content-store.ts'
import type {Digest} from '../oci/digest.ts'

/** A request names a blob by digest alone. */
export const BLOB_TYPE = 'application/octet-stream'
/** Blobs whose size is remembered; some hundred bytes each. */
const MAX_KNOWN = 10_000

export interface KnownBlobs {
  /** Opens a blob; undefined when there is none. The caller disposes it. */
  open(digest: Digest, options: CallOptions): Promise<OpenBlob | undefined>
}

export function createKnownBlobs(content: StoredContent): KnownBlobs {
  const sizes = new LRUCache<Digest, Promise<number | undefined>>({max: MAX_KNOWN})

  /** Without a signal: requests that arrive together share one question, and the first client may go away. */
  function sizeOf(digest: Digest): Promise<number | undefined> {
    const known = sizes.get(digest)
    if (known) return known
    const asked = content.find(digest).then(info => info?.size)
    sizes.set(digest, asked)
    const forget = () => void (sizes.peek(digest) === asked && sizes.delete(digest))
    asked.then(size => size === undefined && forget(), forget)
    return asked
  }

  async function openKnown(digest: Digest, options: CallOptions): Promise<OpenBlob | undefined> {
    const size = await sizeOf(digest)
    return size === undefined ? undefined : content.open({mediaType: BLOB_TYPE, digest, size}, options)
  }

  return {
    async open(digest, options) {
      const remembered = sizes.has(digest)
      try {
        return await openKnown(digest, options)
      } catch (error) {
        // Removed, or written anew, since the store was asked.
        if (!remembered || !hasCode(error, 'not-found', 'corrupt')) throw error
        sizes.delete(digest)
        return openKnown(digest, options)
      }
    },
  }
}
