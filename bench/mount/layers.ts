// Images for the mount benchmark: every layer of an OCI layout as a tree and a device that has all of its data.

import {mkdir, open, readFile, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {gunzipSync} from 'node:zlib'
import {encodeErofs} from '../../src/lib/erofs/encode-image.ts'
import {createChunkBitmap} from '../../src/lib/io/chunk-bitmap.ts'
import type {LazyDevice} from '../../src/lib/layer/ports.ts'
import {extractTree} from '../../src/lib/rootfs/extract-tree.ts'
import {TarScanner} from '../../src/lib/tar/scanner.ts'
import {payloadOffsetOf, type TarEntry} from '../../src/lib/tar/tar-entry.ts'
import type {DirectoryNode} from '../../src/lib/vfs/file-tree.ts'
import {placeLayer} from '../../src/lib/vfs/layer-places.ts'
import {treeOfLayer} from '../../src/lib/vfs/layer-tree.ts'

const BLOCK_SIZE = 4096

export interface BenchLayer {
  readonly root: DirectoryNode
  readonly device: LazyDevice
  /** The EROFS image of the tree, and a plain copy of the layer. */
  readonly image: string
  readonly plain: string
}

/** Unpacks the layers of the image "latest", the lowest first, below `directory`. Gzip or no compression only. */
export async function readLayers(layout: string, directory: string): Promise<BenchLayer[]> {
  const index = await readJson<Index>(join(layout, 'index.json'))
  const blob = (digest: string) => join(layout, 'blobs', digest.replace(':', '/'))
  const {layers} = await readJson<Manifest>(blob(index.manifests[0]!.digest))
  const result: BenchLayer[] = []
  for (const {digest} of layers) {
    const bytes = await readFile(blob(digest))
    const tar = bytes[0] === 0x1f ? gunzipSync(bytes) : bytes
    result.push(await makeLayer(tar, join(directory, `${result.length}`)))
  }
  return result
}

interface Index {
  readonly manifests: readonly {readonly digest: string}[]
}

interface Manifest {
  readonly layers: readonly {readonly digest: string}[]
}

async function readJson<T>(path: string): Promise<T> {
  return JSON.parse(await readFile(path, 'utf8'))
}

async function makeLayer(tar: Buffer, directory: string): Promise<BenchLayer> {
  const plain = join(directory, 'plain')
  await mkdir(plain, {recursive: true})
  const entries: TarEntry[] = []
  const scanner = new TarScanner(entry => entries.push(entry))
  scanner.push(tar)
  scanner.end()
  const path = join(directory, 'data')
  const offsets = await writeDevice(path, tar, entries)
  const root = treeOfLayer(placeLayer(entries).entries, entry => offsets.places.get(entry)!)
  const data = await open(path)
  await extractTree(root, plain, () => data)
  await data.close()
  const image = join(directory, 'image')
  await writeFile(image, encodeErofs(root, {blockSize: BLOCK_SIZE, dataSize: offsets.size}))
  return {root, device: fullDevice(path, offsets.size), image, plain}
}

/** Each file's data at the start of a block, as lazy layers have them. */
async function writeDevice(path: string, tar: Buffer, entries: readonly TarEntry[]) {
  const places = new Map<TarEntry, number>()
  await using file = await open(path, 'w')
  let size = 0
  for (const entry of entries) {
    if (entry.type !== 'reg' || entry.size === 0) continue
    const start = payloadOffsetOf(entry)
    places.set(entry, size)
    await file.write(tar.subarray(start, start + entry.size), 0, entry.size, size)
    size += Math.ceil(entry.size / BLOCK_SIZE) * BLOCK_SIZE
  }
  size = Math.max(size, BLOCK_SIZE)
  await file.truncate(size)
  return {places, size}
}

function fullDevice(path: string, size: number): LazyDevice {
  const blocks = size / BLOCK_SIZE
  const present = createChunkBitmap(blocks)
  for (let block = 0; block < blocks; block++) present.add(block)
  return {
    name: path.replaceAll(/[^0-9]/g, '') || '0',
    size,
    path,
    present: present.buffer,
    read: () => Promise.reject(new Error('Everything is there')),
  }
}
