// The second face of a layer store: images whose layers are mounted, shown as an additional image store. Podman, Buildah and
// CRI-O see them at once, and need no registry to run them.

import pLimit from 'p-limit'
import {CodedError, describeError, hasCode} from '../errors/coded-error.ts'
import {readConfig, readImageTree, readWholeBlob} from '../image/image-tree.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {hexOf} from '../oci/digest.ts'
import type {ImageSource} from '../oci/image-store.ts'
import {MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE} from '../oci/manifest.ts'
import type {Platform} from '../oci/platform.ts'
import {formatReference, parseReference, withDefaultTag} from '../oci/reference.ts'
import type {LayerStore} from './layer-store.ts'
import type {GraphRoot, ImageLayer, StoredImage, StoredImageTable, UnpackedLayers} from './stored-image.ts'

export interface StoredImagesOptions {
  readonly store: LayerStore
  readonly table: StoredImageTable
  readonly graphRoot: GraphRoot
  readonly openImage: (reference: string) => ImageSource
  readonly unpacked: UnpackedLayers
  readonly now: () => Date
}

export class StoredImages {
  readonly #options: StoredImagesOptions
  /** What changes the graph root. */
  readonly #oneAtATime = pLimit(1)

  constructor(options: StoredImagesOptions) {
    this.#options = options
  }

  /** Mounts the layers of an image and shows it; resolves when it can be run. */
  async add(text: string, platform: Platform, call: CallOptions): Promise<StoredImage> {
    const reference = formatReference(withDefaultTag(parseReference(text)))
    await using source = this.#options.openImage(reference)
    const root = await source.resolve(call)
    const [node] = (await readImageTree(source.content, root, [platform], call)).manifests
    if (!node) throw new CodedError('not-found', `Cannot find ${reference} for this platform`)
    const {descriptor, manifest} = node
    const readText = async (blob: typeof descriptor, limit: number) =>
      Buffer.from(await readWholeBlob(source.content, blob, limit, call)).toString()
    const config = await readConfig(source.content, manifest, call)
    const layers = await Promise.all(
      manifest.layers.map((layer, index) =>
        this.#addLayer(reference, {...layer, diffId: config.rootfs.diff_ids[index]!}, call),
      ),
    )
    const image: StoredImage = {
      id: hexOf(manifest.config.digest),
      names: [reference],
      digest: descriptor.digest,
      manifest: await readText(descriptor, MAX_MANIFEST_SIZE),
      config: await readText(manifest.config, MAX_CONFIG_SIZE),
      created: config.created ?? this.#options.now().toISOString(),
      layers,
    }
    return await this.#oneAtATime(() => this.#keep(image))
  }

  /**
   * By a name or an id; resolves to what was removed. An image with other names only loses this one, as with `podman rmi`. Throws `not-found`, and
   * `failed-precondition` while a container uses it.
   */
  remove(nameOrId: string): Promise<StoredImage> {
    return this.#oneAtATime(() => this.#remove(nameOrId))
  }

  list(): readonly StoredImage[] {
    return this.#options.table.list()
  }

  /** After a start: shows what is in the table. */
  restore(): Promise<void> {
    return this.#oneAtATime(() => this.#showAll())
  }

  async #addLayer(
    reference: string,
    {
      digest,
      diffId,
      mediaType,
      size,
    }: Pick<ImageLayer, 'digest' | 'diffId' | 'mediaType'> & {readonly size: number},
    call: CallOptions,
  ): Promise<ImageLayer> {
    const known = {digest, diffId, mediaType, compressedSize: size}
    try {
      const {layer} = await this.#options.store.serve({reference, name: digest}, call)
      // Podman takes an image for damaged when it does not know a layer's size.
      return {...known, uncompressedSize: layer.uncompressedSize ?? size, lazy: layer}
    } catch (error) {
      call.signal?.throwIfAborted()
      if (!hasCode(error, 'unsupported', 'corrupt')) throw error
      const uncompressedSize = await this.#options.unpacked.unpack(reference, known, call)
      return {...known, uncompressedSize, lazy: undefined, reason: describeError(error)}
    }
  }

  /** A name has one image: the last that it was given to. */
  async #keep(image: StoredImage): Promise<StoredImage> {
    const [name] = image.names
    for (const other of this.#options.table.list()) {
      if (other.id !== image.id && other.names.includes(name!)) {
        this.#options.table.put({...other, names: other.names.filter(one => one !== name)})
      }
    }
    const before = this.#options.table.list().find(({id}) => id === image.id)
    const names = [...new Set([...image.names, ...(before?.names ?? [])])]
    const kept = {...image, names}
    this.#options.table.put(kept)
    await this.#showAll()
    return kept
  }

  async #remove(nameOrId: string): Promise<StoredImage> {
    const image = this.#find(nameOrId)
    const others = image.names.filter(name => name !== nameOf(nameOrId))
    if (others.length > 0 && others.length < image.names.length) {
      this.#options.table.put({...image, names: others})
      await this.#showAll()
      return {...image, names: image.names.filter(name => !others.includes(name))}
    }
    const user = await this.#options.graphRoot.findUser(image)
    if (user !== undefined) {
      throw new CodedError(
        'failed-precondition',
        `Cannot remove ${nameOrId}: a container uses it at ${JSON.stringify(user)}; remove the container first`,
      )
    }
    this.#options.table.delete(image.id)
    await this.#showAll()
    for (const layer of image.layers) await this.#drop(layer)
    return image
  }

  async #drop(layer: ImageLayer): Promise<void> {
    if (layer.lazy) return await this.#options.store.forgetUnused(layer.lazy)
    const isNeeded = this.#options.table
      .list()
      .some(({layers}) => layers.some(other => !other.lazy && other.diffId === layer.diffId))
    if (!isNeeded) await this.#options.unpacked.remove(layer.diffId)
  }

  #find(nameOrId: string): StoredImage {
    const name = nameOf(nameOrId)
    const found = this.#options.table
      .list()
      .filter(
        ({id, names}) =>
          names.includes(name) || (/^[0-9a-f]{12,64}$/.test(nameOrId) && id.startsWith(nameOrId)),
      )
    if (found.length === 1) return found[0]!
    const problem =
      found.length === 0 ? 'the layer store has no such image' : 'it is the beginning of several ids'
    throw new CodedError('not-found', `Cannot find ${JSON.stringify(nameOrId)}: ${problem}`)
  }

  #showAll(): Promise<void> {
    const {store, table, graphRoot, unpacked} = this.#options
    return graphRoot.show(table.list(), ({lazy, diffId}) =>
      lazy ? store.directoryOf(lazy) : unpacked.directoryOf(diffId),
    )
  }
}

function nameOf(text: string): string {
  try {
    return formatReference(withDefaultTag(parseReference(text)))
  } catch {
    return text
  }
}
