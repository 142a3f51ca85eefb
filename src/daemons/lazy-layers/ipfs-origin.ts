// Layers out of IPFS, by the URLs in their snapshots' labels, and out of registries where IPFS does not give them.

import {CodedError} from '../../lib/errors/coded-error.ts'
import {isCid} from '../../lib/ipfs/cid.ts'
import {type IpfsNode, ipfsBlob} from '../../lib/ipfs/ipfs-node.ts'
import {ipfsCidIn} from '../../lib/ipfs/ipfs-url.ts'
import type {LayerRequest} from '../../lib/layer/layer-request.ts'
import type {LayerOrigin} from '../../lib/layer/ports.ts'
import type {BlobSource} from '../../lib/oci/content-store.ts'

/** `registries`, after IPFS. An image that is named by a CID is in no registry; `node` is undefined where `ipfs` is not configured. */
export function createIpfsOrigin(registries: LayerOrigin, node: IpfsNode | undefined): LayerOrigin {
  function blob(request: LayerRequest, size: number): BlobSource {
    const {cid, onlyThere} = placeOf(request)
    if (!node || cid === undefined)
      return onlyThere ? nowhere(request, size, node) : registries.blob(request, size)
    const there = ipfsBlob(node, cid, size)
    if (onlyThere) return there
    // Once IPFS has failed, whoever reads this blob is not made to wait for it again.
    let other: BlobSource | undefined
    return {
      size,
      async read(offset, length, call = {}) {
        if (!other) {
          try {
            return await there.read(offset, length, call)
          } catch {
            call.signal?.throwIfAborted()
            other = registries.blob(request, size)
          }
        }
        return await other.read(offset, length, call)
      },
    }
  }

  return {
    blob,
    async openBlob(request, tailSize, call) {
      const {cid, onlyThere} = placeOf(request)
      if (!node || cid === undefined) {
        if (onlyThere) throw notConfigured(request, node)
        return await registries.openBlob(request, tailSize, call)
      }
      try {
        const size = await node.size(cid, call)
        const length = Math.min(size, tailSize)
        const tail = await ipfsBlob(node, cid, size).read(size - length, length, call)
        return {blob: blob(request, size), tail}
      } catch (error) {
        call.signal?.throwIfAborted()
        if (onlyThere) throw error
        return await registries.openBlob(request, tailSize, call)
      }
    },
    async externalToc(request, call) {
      if (!isCid(request.reference)) return await registries.externalToc(request, call)
      const {digest, reference} = request
      throw new CodedError(
        'not-found',
        `Cannot find the TOC of layer ${digest} of ${reference}: it is not in the layer`,
      )
    },
  }
}

function placeOf({reference, urls}: LayerRequest): {
  readonly cid: string | undefined
  readonly onlyThere: boolean
} {
  return {cid: ipfsCidIn(urls), onlyThere: isCid(reference)}
}

function nowhere(request: LayerRequest, size: number, node: IpfsNode | undefined): BlobSource {
  return {size, read: () => Promise.reject(notConfigured(request, node))}
}

function notConfigured({digest, reference}: LayerRequest, node: IpfsNode | undefined): CodedError {
  const problem = node
    ? 'its snapshot has no label with its ipfs:// URL'
    : 'it is in IPFS; set ipfs = true in the configuration of the daemon'
  return new CodedError('unsupported', `Cannot read layer ${digest} of ${reference} lazily: ${problem}`)
}
