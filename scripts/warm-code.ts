// Makes the code that is shipped beside the command line: has it do what people do first, against a registry and a
// containerd of this process, and keeps what V8 has compiled for that.

import {execFile} from 'node:child_process'
import {mkdtemp, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {promisify} from 'node:util'
import {digestOf} from '../src/lib/blob/sha256.ts'
import {openLocalStore} from '../src/lib/layout/local-store.ts'
import {TOC_DIGEST} from '../src/lib/oci/annotations.ts'
import type {ContentStore} from '../src/lib/oci/content-store.ts'
import type {Descriptor} from '../src/lib/oci/descriptor.ts'
import {encodeJson} from '../src/lib/oci/manifest.ts'
import {OCI_CONFIG, OCI_MANIFEST} from '../src/lib/oci/media-type.ts'
import {hostPlatform} from '../src/lib/oci/platform.ts'
import {serveRegistry} from '../src/lib/registry-server/serve-registry.ts'
import {startWarmContainerd} from './warm-containerd.ts'

const WARM_RUN = join(import.meta.dirname, 'warm-run.ts')

/** Layers of the image that is pulled: code that runs for each is compiled as code that runs often. */
const LAYERS = 4

/** Runs the program of a directory, and leaves the code of its files in it. */
export async function warmCode(directory: string): Promise<void> {
  const place = await mkdtemp(join(tmpdir(), 'ctr-remote-warm-'))
  try {
    await using store = await openLocalStore(join(place, 'store'))
    await using _lease = await store.lease()
    await store.images.put('localhost/app:1', await writeImage(store.content))
    await using registry = await serveRegistry(store)
    const socket = join(place, 'containerd.sock')
    using _containerd = await startWarmContainerd(socket)
    const image = `${registry.address}/app:1`
    for (const line of [
      ['-a', socket, '--store', 'containerd', 'image', 'rpull', image],
      ['--store', 'local', 'image', 'pull', image],
      ['--store', 'local', 'image', 'ls'],
      ['--store', 'local', 'image', 'pull', '--help'],
      ['--help'],
    ]) {
      await promisify(execFile)(process.execPath, [WARM_RUN, directory, ...line], {
        // Nobody's configuration gets in the way.
        env: {HOME: place, PATH: process.env.PATH},
        cwd: place,
      })
    }
  } finally {
    await rm(place, {recursive: true, force: true})
  }
}

/** An image that looks like eStargz. Nobody reads its layers as such. */
async function writeImage(content: ContentStore): Promise<Descriptor> {
  const layers: Descriptor[] = []
  for (let index = 0; index < LAYERS; index += 1) {
    const bytes = Buffer.alloc(512 * (index + 2))
    const annotations = {[TOC_DIGEST]: digestOf(bytes)}
    layers.push({
      ...(await writeBlob(content, bytes, 'application/vnd.oci.image.layer.v1.tar')),
      annotations,
    })
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
