// Adds an image to IPFS: every blob, then the documents, whose descriptors say where the blobs are, and last the root's own
// descriptor, whose CID is the image's name.

import pLimit from 'p-limit'
import {digestOf} from '../blob/sha256.ts'
import {
  attestationsOf,
  isAttestation,
  type ManifestNode,
  type PlatformSelection,
  readImage,
  requireImage,
} from '../image/image-tree.ts'
import type {ProgressSink} from '../io/progress.ts'
import {settleAll} from '../io/settle-all.ts'
import type {IpfsNode} from '../ipfs/ipfs-node.ts'
import {withIpfsUrl} from '../ipfs/ipfs-url.ts'
import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import {type Descriptor, withContent} from '../oci/descriptor.ts'
import type {ImageSource} from '../oci/image-store.ts'
import {encodeJson, type ImageIndex, type ImageManifest, toOciMediaType} from '../oci/manifest.ts'
import {isConfigMediaType, isForeignLayer, OCI_CONFIG, toOciLayerType} from '../oci/media-type.ts'

/** Blobs added at once: the node is on this machine as a rule, and hashes them. */
const PARALLEL_BLOBS = 4

export interface IpfsPushOptions extends CallOptions {
  readonly platforms: PlatformSelection
  readonly onProgress?: ProgressSink | undefined
}

export interface IpfsPushedImage {
  /** The image's name in IPFS. */
  readonly cid: string
  readonly root: Descriptor
  /** Attestations of these manifests, which the image in IPFS does not have: its manifests are others. */
  readonly droppedAttestations: readonly Descriptor[]
}

/** Adds the selected platforms of an image; Docker media types become OCI ones. */
export async function pushToIpfs(
  source: ImageSource,
  node: IpfsNode,
  options: IpfsPushOptions,
): Promise<IpfsPushedImage> {
  const tree = await readImage(source, options.platforms, options)
  const images = tree.manifests.filter(({descriptor}) => !isAttestation(descriptor))
  requireImage(images, 'push')
  const abort = new AbortController()
  const signal = options.signal ? AbortSignal.any([options.signal, abort.signal]) : abort.signal
  const push = new Push(source.content, node, {...options, signal})
  const manifests = await settleAll(
    images.map(image => push.manifest(image)),
    abort,
  )
  const root = tree.index
    ? await push.document({...tree.index, mediaType: toOciMediaType(tree.index.mediaType), manifests})
    : rootOf(manifests[0]!)
  const bytes = encodeJson(root)
  const cid = await node.add(addable(bytes), {signal})
  return {cid, root, droppedAttestations: attestationsOf(tree)}
}

/** What the parts of one push share. */
class Push {
  readonly #content: ContentStore
  readonly #node: IpfsNode
  readonly #options: IpfsPushOptions
  readonly #limit = pLimit(PARALLEL_BLOBS)
  readonly #added = new Map<string, Promise<string>>()

  constructor(content: ContentStore, node: IpfsNode, options: IpfsPushOptions) {
    this.#content = content
    this.#node = node
    this.#options = options
  }

  async manifest({descriptor, manifest}: ManifestNode): Promise<Descriptor> {
    const {config, layers} = manifest
    const isImage = isConfigMediaType(config.mediaType)
    const [newConfig, ...newLayers] = await Promise.all([
      this.#blob(isImage ? {...config, mediaType: OCI_CONFIG} : config, 'config'),
      ...layers.map((layer, index) =>
        this.#blob(
          {...layer, mediaType: toOciLayerType(layer.mediaType)},
          `layer ${index + 1}/${layers.length}`,
        ),
      ),
    ])
    const mediaType = toOciMediaType(manifest.mediaType)
    const document = await this.document({...manifest, mediaType, config: newConfig!, layers: newLayers})
    const {urls} = document
    return {...withContent(descriptor, document), ...(urls ? {urls} : {})}
  }

  /** Adds a document; resolves to its descriptor. */
  async document(document: ImageManifest | ImageIndex): Promise<Descriptor> {
    const {signal} = this.#options
    const bytes = encodeJson(document)
    const cid = await this.#limit(() => this.#node.add(addable(bytes), {signal}))
    return withIpfsUrl({mediaType: document.mediaType, digest: digestOf(bytes), size: bytes.length}, cid)
  }

  async #blob(descriptor: Descriptor, label: string): Promise<Descriptor> {
    const {signal} = this.#options
    // One that must not be distributed is elsewhere.
    const isElsewhere =
      isForeignLayer(descriptor.mediaType) && !(await this.#content.info(descriptor, {signal}))
    if (isElsewhere) return descriptor
    const adding = this.#added.get(descriptor.digest) ?? this.#limit(() => this.#add(descriptor, label))
    this.#added.set(descriptor.digest, adding)
    return withIpfsUrl(descriptor, await adding)
  }

  async #add(descriptor: Descriptor, name: string): Promise<string> {
    const {signal, onProgress} = this.#options
    signal?.throwIfAborted()
    const {digest: id, size: totalBytes} = descriptor
    const label = `${name} ${id.slice(0, 19)}`
    let doneBytes = 0
    await using blob = await this.#content.open(descriptor, {signal})
    async function* stream(): AsyncGenerator<Uint8Array> {
      doneBytes = 0
      for await (const bytes of blob.stream({signal})) {
        yield bytes
        doneBytes += bytes.length
        onProgress?.({id, label, phase: 'running', doneBytes, totalBytes})
      }
    }
    onProgress?.({id, label, phase: 'running', doneBytes, totalBytes})
    const cid = await this.#node.add({size: totalBytes, stream}, {signal})
    onProgress?.({id, label, phase: 'done', doneBytes, totalBytes})
    return cid
  }
}

/** A root is described by what it is alone, as everywhere: what an index says of a place in it has no meaning here. */
function rootOf({mediaType, digest, size, urls}: Descriptor): Descriptor {
  return {mediaType, digest, size, ...(urls ? {urls} : {})}
}

function addable(bytes: Uint8Array) {
  return {
    size: bytes.length,
    async *stream() {
      yield bytes
    },
  }
}
