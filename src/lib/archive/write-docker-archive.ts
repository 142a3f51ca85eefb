// Writes `docker save` archives: layers decompressed and named by DiffID, as every version of `docker load` takes them.

import {open} from 'node:fs/promises'
import {join} from 'node:path'
import {decompressStream} from '../blob/decompress.ts'
import {createDigester} from '../blob/sha256.ts'
import {CodedError} from '../errors/coded-error.ts'
import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {type Digest, hexOf} from '../oci/digest.ts'
import {encodeJson, type ImageManifest, parseImageConfig} from '../oci/manifest.ts'
import {isConfigMediaType, layerCompressionOf} from '../oci/media-type.ts'
import type {ArchiveStaging} from './archive-staging.ts'
import type {DockerArchiveEntry} from './docker-archive-format.ts'
import {readManifest, readSmallBlob} from './read-manifest.ts'
import type {MemberToWrite} from './tar-writer.ts'

/**
 * Writes the staged image `root` as an archive. Throws `unsupported` for several platforms and for what is no
 * container image, `corrupt` when a layer does not decompress to its DiffID.
 */
export async function writeDockerArchive(
  staging: ArchiveStaging,
  root: Descriptor,
  names: readonly string[],
  options: CallOptions,
): Promise<void> {
  const {content} = staging
  const manifest = await singleManifest(content, root, options)
  const configBytes = await readSmallBlob(content, manifest.config, options)
  const config = parseImageConfig(configBytes, `the config ${manifest.config.digest}`)
  const diffIds = config.rootfs.diff_ids
  if (diffIds.length !== manifest.layers.length) {
    throw new CodedError(
      'corrupt',
      `Cannot write ${content.name}: the config lists ${diffIds.length} layers, the manifest ${manifest.layers.length}`,
    )
  }
  const entry: DockerArchiveEntry = {
    Config: `${hexOf(manifest.config.digest)}.json`,
    RepoTags: names,
    Layers: diffIds.map(layerName),
  }
  await staging.finish(membersOf(staging, manifest, diffIds, {entry, configBytes}, options), options)
}

async function* membersOf(
  staging: ArchiveStaging,
  {layers}: ImageManifest,
  diffIds: readonly Digest[],
  {entry, configBytes}: {entry: DockerArchiveEntry; configBytes: Uint8Array},
  options: CallOptions,
): AsyncGenerator<MemberToWrite> {
  const written = new Set<Digest>()
  for (const [index, layer] of layers.entries()) {
    const diffId = diffIds[index]!
    if (written.has(diffId)) continue
    written.add(diffId)
    const file = join(staging.scratch, 'layer.tar')
    // The size goes before the layer in a tar, and only decompressing tells it.
    yield {
      name: layerName(diffId),
      file,
      size: await decompressLayer(staging.content, layer, diffId, file, options),
    }
  }
  yield {name: entry.Config, bytes: configBytes}
  yield {name: 'manifest.json', bytes: encodeJson([entry])}
}

async function singleManifest(
  content: ContentStore,
  root: Descriptor,
  options: CallOptions,
): Promise<ImageManifest> {
  const document = await readManifest(content, root, options)
  if (document.kind === 'index') {
    throw new CodedError(
      'unsupported',
      `Cannot write ${content.name}: a docker archive holds one platform of an image; choose it with --platform`,
    )
  }
  const {manifest} = document
  const other = manifest.layers.find(layer => layerCompressionOf(layer.mediaType) === undefined)
  if (other || !isConfigMediaType(manifest.config.mediaType)) {
    const type = JSON.stringify(other?.mediaType ?? manifest.config.mediaType)
    throw new CodedError('unsupported', `Cannot write ${content.name}: ${type} is no part of a Docker image`)
  }
  return manifest
}

/** Writes a layer's tar to `file`, replacing it; resolves to its size in bytes. */
async function decompressLayer(
  content: ContentStore,
  layer: Descriptor,
  diffId: Digest,
  file: string,
  options: CallOptions,
): Promise<number> {
  const digester = createDigester()
  let size = 0
  await using blob = await content.open(layer, options)
  await using output = await open(file, 'w', 0o600)
  const where = `layer ${layer.digest} for ${content.name}`
  for await (const bytes of decompressStream(blob.stream(options), where, options)) {
    digester.update(bytes)
    size += bytes.length
    await output.writeFile(bytes)
  }
  const digest = digester.digest()
  if (digest !== diffId) {
    throw new CodedError(
      'corrupt',
      `Cannot use ${where}: its tar is ${digest}, and its config says ${diffId}`,
    )
  }
  return size
}

function layerName(diffId: Digest): string {
  return `${hexOf(diffId)}.tar`
}
