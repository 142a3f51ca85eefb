// Small real images for tests: layers are true tars, configs and manifests are complete.

import {gzipSync} from 'node:zlib'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import type {ContentStore} from '../../src/lib/oci/content-store.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import {encodeJson} from '../../src/lib/oci/manifest.ts'
import {
  DOCKER_CONFIG,
  DOCKER_MANIFEST,
  layerMediaType,
  OCI_CONFIG,
  OCI_INDEX,
  OCI_MANIFEST,
} from '../../src/lib/oci/media-type.ts'
import {encodeHeaderBlock} from '../../src/lib/tar/header.ts'

export interface SampleOptions {
  /** File name -> content, one record a layer. */
  readonly layers?: readonly Readonly<Record<string, string | Uint8Array>>[]
  readonly architecture?: string
  readonly compression?: 'none' | 'gzip'
  readonly family?: 'oci' | 'docker'
}

export interface SampleImage {
  readonly root: Descriptor
  readonly config: Descriptor
  readonly layers: readonly Descriptor[]
}

/** A tar of regular files. */
export function tarOf(files: Readonly<Record<string, string | Uint8Array>>): Buffer {
  const members = Object.entries(files).flatMap(([name, content]) => {
    const bytes = Buffer.from(content)
    const padding = Buffer.alloc((512 - (bytes.length % 512)) % 512)
    return [encodeHeaderBlock({name, typeflag: '0', size: bytes.length, mode: 0o644}), bytes, padding]
  })
  return Buffer.concat([...members, Buffer.alloc(1024)])
}

/** Writes bytes as a blob. */
export async function writeBlob(
  content: ContentStore,
  bytes: Uint8Array,
  mediaType = 'application/octet-stream',
): Promise<Descriptor> {
  const descriptor = {mediaType, digest: digestOf(bytes), size: bytes.length}
  await using writer = await content.write(descriptor)
  await writer.write(bytes)
  await writer.commit(descriptor)
  return descriptor
}

/** Writes an image of one platform. */
export async function writeSampleImage(
  content: ContentStore,
  options: SampleOptions = {},
): Promise<SampleImage> {
  const {layers = [{'a.txt': 'a\n'}, {'b.txt': 'b\n'}], compression = 'gzip', family = 'oci'} = options
  const tars = layers.map(tarOf)
  const descriptors: Descriptor[] = []
  for (const tar of tars) {
    const bytes = compression === 'gzip' ? gzipSync(tar) : tar
    descriptors.push(await writeBlob(content, bytes, layerMediaType(compression, family)))
  }
  const config = await writeBlob(
    content,
    encodeJson({
      architecture: options.architecture ?? 'amd64',
      os: 'linux',
      created: '2024-01-01T00:00:00Z',
      config: {Cmd: ['/bin/true']},
      rootfs: {type: 'layers', diff_ids: tars.map(digestOf)},
    }),
    family === 'oci' ? OCI_CONFIG : DOCKER_CONFIG,
  )
  const mediaType = family === 'oci' ? OCI_MANIFEST : DOCKER_MANIFEST
  const manifest = {schemaVersion: 2, mediaType, config, layers: descriptors}
  const root = await writeBlob(content, encodeJson(manifest), mediaType)
  return {root, config, layers: descriptors}
}

/** Writes an index of images for these architectures; each has a layer of its own. */
export async function writeSampleIndex(
  content: ContentStore,
  architectures: readonly string[],
): Promise<{readonly root: Descriptor; readonly images: readonly SampleImage[]}> {
  const images: SampleImage[] = []
  for (const architecture of architectures) {
    images.push(await writeSampleImage(content, {architecture, layers: [{'arch.txt': `${architecture}\n`}]}))
  }
  const manifests = images.map(({root}, index) => ({
    ...root,
    platform: {os: 'linux', architecture: architectures[index]},
  }))
  const root = await writeBlob(
    content,
    encodeJson({schemaVersion: 2, mediaType: OCI_INDEX, manifests}),
    OCI_INDEX,
  )
  return {root, images}
}

/** All bytes of a blob, verified. */
export async function readBlob(content: ContentStore, descriptor: Descriptor): Promise<Buffer> {
  await using blob = await content.open(descriptor)
  const parts: Uint8Array[] = []
  for await (const part of blob.stream()) parts.push(part)
  return Buffer.concat(parts)
}
