// containerd's image service as an image store.

import {type Timestamp, timestampDate} from '@bufbuild/protobuf/wkt'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import {type Descriptor, parseDescriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import type {ImageRecord, ImageStore} from '../oci/image-store.ts'
import {MAX_MANIFEST_SIZE, parseImageDocument} from '../oci/manifest.ts'
import {isIndexMediaType, isManifestMediaType} from '../oci/media-type.ts'
import type {ContainerdClient} from './client.ts'
import {describePlace} from './failure.ts'
import {childLabels, type Labels, missingLabels} from './gc-labels.ts'
import {type Image, Images} from './proto/images_pb.ts'
import type {SessionLease} from './session-lease.ts'

/** Two processes that create and remove the same name: who loses this often in a row gives up. */
const MAX_PUT_ATTEMPTS = 5

/** Indexes within indexes, as deep as any reader of images goes. */
const MAX_DEPTH = 3

/** The images of a namespace. `put` also labels everything the image needs, so that the garbage collector keeps it. */
export function createImages(
  client: ContainerdClient,
  lease: SessionLease,
  content: ContentStore,
): ImageStore {
  /** Roots whose tree was labelled, and under which lease: what the lease keeps stays as it is. */
  const linked = new Map<Digest, string>()
  const link = async (target: Descriptor, options: CallOptions = {}): Promise<void> => {
    await labelTree(content, target, options, 0)
    if (lease.id !== undefined) linked.set(target.digest, lease.id)
  }
  return {
    link,
    async get(name, options = {}) {
      try {
        const doing = `read the image "${name}"`
        const {image} = await client.call(Images.method.get, {name}, {...options, doing})
        return image && recordOf(image, client)
      } catch (error) {
        if (hasCode(error, 'not-found')) return undefined
        throw error
      }
    },
    async list(options = {}) {
      const {images} = await client.call(Images.method.list, {}, {...options, doing: 'list images'})
      return images
        .map(image => recordOf(image, client))
        .sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0))
    },
    async put(name, target, options = {}) {
      if (name === '') throw new CodedError('invalid-argument', 'Cannot name an image "": the name is empty')
      if (lease.id === undefined || linked.get(target.digest) !== lease.id) await link(target, options)
      return recordOf(await createOrUpdate(client, lease, name, target, options), client)
    },
    async remove(name, options = {}) {
      const {sync = false} = options
      await client.call(Images.method.delete, {name, sync}, {...options, doing: `remove the image "${name}"`})
    },
  }
}

async function createOrUpdate(
  client: ContainerdClient,
  lease: SessionLease,
  name: string,
  target: Descriptor,
  options: CallOptions & {readonly labels?: Labels},
): Promise<Image> {
  const {mediaType, digest, size, annotations = {}} = target
  const image = {
    name,
    labels: {...options.labels},
    target: {mediaType, digest, size: BigInt(size), annotations: {...annotations}},
  }
  const call = {...options, lease: lease.id, doing: `name ${digest} "${name}"`}
  const paths = options.labels ? ['target', 'labels'] : ['target']
  for (let attempt = 1; ; attempt += 1) {
    try {
      return (await client.call(Images.method.create, {image}, call)).image!
    } catch (error) {
      if (!hasCode(error, 'already-exists')) throw error
    }
    try {
      return (await client.call(Images.method.update, {image, updateMask: {paths}}, call)).image!
    } catch (error) {
      if (!hasCode(error, 'not-found') || attempt === MAX_PUT_ATTEMPTS) throw error
    }
  }
}

/**
 * Labels manifests and indexes with their children. Other platforms' manifests that are not in the store are left out;
 * the root must be there.
 */
async function labelTree(
  content: ContentStore,
  descriptor: Descriptor,
  options: CallOptions,
  depth: number,
): Promise<void> {
  const info = await content.info(descriptor, options)
  if (!info) {
    if (depth > 0) return
    throw new CodedError('not-found', `Cannot name ${descriptor.digest}: it is not in ${content.name}`)
  }
  if (!isManifestMediaType(descriptor.mediaType) && !isIndexMediaType(descriptor.mediaType)) return
  const where = `the manifest ${descriptor.digest} in ${content.name}`
  if (descriptor.size > MAX_MANIFEST_SIZE)
    throw new CodedError('corrupt', `Cannot use ${where}: it is too large`)
  await using blob = await content.open(descriptor, options)
  const bytes = await blob.read(0, descriptor.size, options)
  const document = parseImageDocument(bytes, descriptor.mediaType, where)
  const missing = missingLabels(info, childLabels(document))
  if (Object.keys(missing).length > 0) await content.setLabels(descriptor.digest, missing, options)
  if (document.kind === 'manifest' || depth >= MAX_DEPTH) return
  for (const entry of document.index.manifests) await labelTree(content, entry, options, depth + 1)
}

function recordOf(image: Image, client: ContainerdClient): ImageRecord {
  const {name, target, labels} = image
  const value = target && {
    mediaType: target.mediaType,
    digest: target.digest,
    size: Number(target.size),
    ...(Object.keys(target.annotations).length > 0 ? {annotations: target.annotations} : {}),
  }
  return {
    name,
    target: parseDescriptor(value, `the image "${name}" of ${describePlace(client)}`),
    labels,
    createdAt: formatTime(image.createdAt),
    updatedAt: formatTime(image.updatedAt),
  }
}

function formatTime(time: Timestamp | undefined): string {
  return (time ? timestampDate(time) : new Date(0)).toISOString()
}
