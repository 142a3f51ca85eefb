// Images whose layers cost a snapshotter nothing: what is left of a pull is the client's.

import {execa} from 'execa'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import type {ContentStore} from '../../src/lib/oci/content-store.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import {encodeJson} from '../../src/lib/oci/manifest.ts'
import {OCI_CONFIG, OCI_MANIFEST} from '../../src/lib/oci/media-type.ts'
import {hostPlatform} from '../../src/lib/oci/platform.ts'
import {encodeHeaderBlock} from '../../src/lib/tar/header.ts'

/** Puts `bench:N`, an image of N layers of one file each, into the local store below `directory`, as eStargz. */
export async function makeImages(
  directory: string,
  counts: readonly number[],
  ctrRemote: string,
): Promise<void> {
  for (const count of counts) {
    {
      await using store = await openLocalStore(`${directory}/images`)
      await using _lease = await store.lease()
      await store.images.put(`localhost/plain:${count}`, await writeImage(store.content, count))
    }
    const names = [`localhost/plain:${count}`, `localhost/bench:${count}`]
    const env = {CTR_REMOTE_STORE: 'local', CTR_REMOTE_DATA_DIR: directory}
    await execa(ctrRemote, ['image', 'convert', '--quiet', '--estargz', '--oci', ...names], {env})
  }
}

async function writeImage(content: ContentStore, count: number): Promise<Descriptor> {
  const layers: Descriptor[] = []
  for (let index = 0; index < count; index += 1) {
    const text = Buffer.from(`layer ${index} of ${count}\n`)
    const header = encodeHeaderBlock({name: `file-${index}`, typeflag: '0', size: text.length, mode: 0o644})
    const tar = Buffer.concat([header, text, Buffer.alloc(512 - text.length), Buffer.alloc(1024)])
    layers.push(await writeBlob(content, tar, 'application/vnd.oci.image.layer.v1.tar'))
  }
  const rootfs = {type: 'layers', diff_ids: layers.map(({digest}) => digest)}
  const config = await writeBlob(content, encodeJson({...hostPlatform(), rootfs}), OCI_CONFIG)
  const manifest = {schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers}
  return writeBlob(content, encodeJson(manifest), OCI_MANIFEST)
}

async function writeBlob(content: ContentStore, bytes: Uint8Array, mediaType: string): Promise<Descriptor> {
  const descriptor = {mediaType, digest: digestOf(bytes), size: bytes.length}
  await using writer = await content.write(descriptor)
  await writer.write(bytes)
  await writer.commit(descriptor)
  return descriptor
}
