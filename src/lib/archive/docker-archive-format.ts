// The archive of `docker save` (moby image/tarexport): manifest.json names configs and layers, which are plain tars.

import {open} from 'node:fs/promises'
import {detectCompression, MAGIC_SIZE} from '../blob/detect-compression.ts'
import {readFully} from '../blob/file-blob.ts'
import {createDigester, digestOf} from '../blob/sha256.ts'
import {CodedError} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {type Descriptor, isRecord} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import {
  encodeJson,
  type ImageManifest,
  MAX_CONFIG_SIZE,
  MAX_LAYERS,
  parseImageConfig,
} from '../oci/manifest.ts'
import {DOCKER_CONFIG, DOCKER_MANIFEST, type LayerCompression, layerMediaType} from '../oci/media-type.ts'
import {type ArchivedBlob, createArchiveContent} from './archive-content.ts'
import {type ArchiveMembers, type Member, readMember} from './archive-members.ts'
import type {ArchivedImage, ImageArchive} from './image-archive.ts'

/** One entry of manifest.json. */
export interface DockerArchiveEntry {
  readonly Config: string
  readonly RepoTags: readonly string[] | null
  readonly Layers: readonly string[]
}

/** Images of one archive list a few hundred bytes each; real ones hold tens. */
const MAX_MANIFEST_JSON_SIZE = 4 * 1024 * 1024
const HASH_CHUNK_SIZE = 1024 * 1024

/**
 * Reads the images of a `docker save` archive as Docker schema 2 manifests over its own files. An uncompressed layer's
 * digest is the DiffID that the config claims, which is checked when the layer is read; a compressed layer,
 * which Docker loads too, is hashed here.
 */
export async function readDockerArchive(
  members: ArchiveMembers,
  options: CallOptions,
): Promise<Pick<ImageArchive, 'images' | 'content'>> {
  const where = `the manifest.json in ${members.where}`
  const entries = parseEntries(await readMember(members, 'manifest.json', MAX_MANIFEST_JSON_SIZE), where)
  const blobs = new Map<Digest, ArchivedBlob>()
  const images: ArchivedImage[] = []
  const hashCompressed = onceByOffset(member => hashMember(members, member, options))
  for (const entry of entries) images.push(await readImage(members, entry, blobs, hashCompressed))
  const {file, where: name} = members
  return {images, content: createArchiveContent({file, name, find: digest => blobs.get(digest)})}
}

async function readImage(
  members: ArchiveMembers,
  entry: DockerArchiveEntry,
  blobs: Map<Digest, ArchivedBlob>,
  hashCompressed: (member: Member) => Promise<Digest>,
): Promise<ArchivedImage> {
  const configBytes = await readMember(members, entry.Config, MAX_CONFIG_SIZE)
  const config = parseImageConfig(configBytes, `the config "${entry.Config}" in ${members.where}`)
  const diffIds = config.rootfs.diff_ids
  if (diffIds.length !== entry.Layers.length) {
    throw new CodedError(
      'corrupt',
      `Cannot use ${members.where}: the config "${entry.Config}" has ${diffIds.length} layers, its entry ${entry.Layers.length}`,
    )
  }
  const layers: Descriptor[] = []
  for (const [index, name] of entry.Layers.entries()) {
    const member = members.find(name)
    if (!member) throw new CodedError('corrupt', `Cannot use ${members.where}: it lacks the layer "${name}"`)
    const compression = await compressionOfLayer(members, member, name)
    const digest = compression === 'none' ? diffIds[index]! : await hashCompressed(member)
    blobs.set(digest, member)
    layers.push({mediaType: layerMediaType(compression, 'docker'), digest, size: member.size})
  }
  const manifest: ImageManifest = {
    schemaVersion: 2,
    mediaType: DOCKER_MANIFEST,
    config: addBytes(blobs, configBytes, DOCKER_CONFIG),
    layers,
  }
  return {names: entry.RepoTags ?? [], target: addBytes(blobs, encodeJson(manifest), DOCKER_MANIFEST)}
}

function addBytes(blobs: Map<Digest, ArchivedBlob>, bytes: Uint8Array, mediaType: string): Descriptor {
  const digest = digestOf(bytes)
  blobs.set(digest, bytes)
  return {mediaType, digest, size: bytes.length}
}

/** Layers are shared by the images of an archive, under one name or linked. */
function onceByOffset(hash: (member: Member) => Promise<Digest>): (member: Member) => Promise<Digest> {
  const digests = new Map<number, Promise<Digest>>()
  return member => {
    const known = digests.get(member.offset) ?? hash(member)
    digests.set(member.offset, known)
    return known
  }
}

/** Docker loads compressed layers too, of whatever name; throws `unsupported` for a compression that layers do not have. */
async function compressionOfLayer(
  members: ArchiveMembers,
  {offset, size}: Member,
  name: string,
): Promise<LayerCompression> {
  await using file = await open(members.file, 'r')
  const found = detectCompression(await readFully(file, offset, Math.min(MAGIC_SIZE, size), members.where))
  if (found === 'none' || found === 'gzip' || found === 'zstd') return found
  throw new CodedError(
    'unsupported',
    `Cannot use the layer "${name}" in ${members.where}: ${found} is not supported, only gzip and zstd are`,
  )
}

async function hashMember(
  members: ArchiveMembers,
  {offset, size}: Member,
  {signal}: CallOptions,
): Promise<Digest> {
  const digester = createDigester()
  await using file = await open(members.file, 'r')
  for (let done = 0; done < size; done += HASH_CHUNK_SIZE) {
    signal?.throwIfAborted()
    digester.update(
      await readFully(file, offset + done, Math.min(HASH_CHUNK_SIZE, size - done), members.where),
    )
  }
  return digester.digest()
}

function parseEntries(bytes: Uint8Array, where: string): DockerArchiveEntry[] {
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', {fatal: true}).decode(bytes))
  } catch (cause) {
    throw new CodedError('corrupt', `Cannot parse ${where} as JSON`, {cause})
  }
  if (!Array.isArray(value)) throw new CodedError('corrupt', `Cannot use ${where}: it is no list of images`)
  return value.map((entry: unknown, index) => parseEntry(entry, `image ${index} of ${where}`))
}

function parseEntry(value: unknown, where: string): DockerArchiveEntry {
  const isStrings = (list: unknown): list is string[] =>
    Array.isArray(list) && list.every(item => typeof item === 'string')
  // Go writes null for no layers.
  const layers = isRecord(value) && value.Layers === null ? [] : isRecord(value) && value.Layers
  if (!isRecord(value) || typeof value.Config !== 'string' || !isStrings(layers)) {
    throw new CodedError('corrupt', `Cannot use ${where}: it lacks "Config" or "Layers"`)
  }
  if (layers.length > MAX_LAYERS) {
    throw new CodedError(
      'corrupt',
      `Cannot use ${where}: ${layers.length} layers exceed the limit of ${MAX_LAYERS}`,
    )
  }
  const tags = value.RepoTags ?? null
  if (tags !== null && !isStrings(tags)) {
    throw new CodedError('corrupt', `Cannot use ${where}: "RepoTags" is no list of names`)
  }
  return {Config: value.Config, RepoTags: tags, Layers: layers}
}
