// An image in IPFS: its name is the CID of its root descriptor's JSON, and every descriptor says by `urls` where its bytes
// are. The root is verified by the CID, all else by the digests.

import {verifyStream} from '../blob/verified-stream.ts'
import {CodedError} from '../errors/coded-error.ts'
import type {ContentStore, OpenBlob} from '../oci/content-store.ts'
import {type Descriptor, parseDescriptor} from '../oci/descriptor.ts'
import type {ImageSource} from '../oci/image-store.ts'
import {verifyCid} from './cid.ts'
import {type IpfsNode, ipfsBlob} from './ipfs-node.ts'
import {ipfsCidIn} from './ipfs-url.ts'

/** Opens the image of a CID (as `parseCid` gives it) for reading; the caller keeps the node. */
export function createIpfsImageSource(cid: string, node: IpfsNode): ImageSource {
  const name = `ipfs://${cid}`
  return {
    name,
    content: ipfsContent(node, name),
    async resolve(call = {}) {
      const bytes = await node.document(cid, call)
      verifyCid(cid, bytes)
      const root = parseDescriptor(parseJson(bytes, name), `what is at ${name}`)
      if (ipfsCidIn(root.urls)) return root
      throw new CodedError(
        'corrupt',
        `Cannot use ${name}: it is no image of ipfs-push, whose root says where it is in IPFS`,
      )
    },
    async [Symbol.asyncDispose]() {},
  }
}

/** What descriptors with `ipfs://` urls describe, for reading. */
function ipfsContent(node: IpfsNode, name: string): ContentStore {
  const readOnly = () => new CodedError('unsupported', `Cannot write to ${name}: use image ipfs-push`)
  return {
    name,
    async info(descriptor) {
      const {digest, size} = descriptor
      return ipfsCidIn(descriptor.urls) ? {digest, size, labels: {}} : undefined
    },
    async open(descriptor) {
      const cid = ipfsCidIn(descriptor.urls)
      if (cid) return openBlob(node, cid, descriptor, name)
      throw new CodedError(
        'not-found',
        `Cannot find ${descriptor.digest} of ${name}: its descriptor has no ipfs:// URL`,
      )
    },
    write: () => Promise.reject(readOnly()),
    setLabels: () => Promise.reject(readOnly()),
  }
}

function openBlob(node: IpfsNode, cid: string, descriptor: Descriptor, name: string): OpenBlob {
  const {size} = descriptor
  return {
    ...ipfsBlob(node, cid, size),
    stream: (call = {}) => verifyStream(node.cat(cid, 0, size, call), descriptor, name),
    async [Symbol.asyncDispose]() {},
  }
}

function parseJson(bytes: Uint8Array, name: string): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString('utf8'))
  } catch (cause) {
    throw new CodedError('corrupt', `Cannot use ${name}: it is no JSON of an image's root`, {cause})
  }
}
