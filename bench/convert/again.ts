// Converts the layers of an image to eStargz, and then again with some files put first: once as any source, once moving
// what stays as it is. Same bytes, less work. node bench/convert/again.ts LAYOUT [SHARE_OF_FILES [MIN_CHUNK_SIZE]]

import {mkdtemp, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {type ConvertedBlob, convertLayer} from '../../src/lib/convert/convert-layer.ts'
import {estargzCompressor} from '../../src/lib/estargz/compressor.ts'
import {readConfig, readImageTree} from '../../src/lib/image/image-tree.ts'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {createLayoutSource} from '../../src/lib/layout/oci-directory.ts'
import {createBulkCodec} from '../../src/lib/native/bulk-codec.ts'

const [layout, share = '0.05', minChunkSize = '0'] = process.argv.slice(2)
if (!layout) throw new Error('usage: again.ts LAYOUT [SHARE_OF_FILES [MIN_CHUNK_SIZE]]')

const directory = await mkdtemp(join(tmpdir(), 'ctr-remote-again-'))
try {
  await using source = createLayoutSource({path: layout, tag: 'latest'})
  await using store = await openLocalStore(directory)
  await using _lease = await store.lease()
  const total = {members: 0, moved: 0, size: 0, plain: {wall: 0, cpu: 0}, again: {wall: 0, cpu: 0}}
  const tree = await readImageTree(source.content, await source.resolve(), 'all')
  const {manifest} = tree.manifests[0]!
  const config = await readConfig(source.content, manifest)
  const options = {
    codec: createBulkCodec(),
    compressor: estargzCompressor(6),
    target: store.content,
    family: 'oci',
    temporaryDirectory: tmpdir(),
    minChunkSize: Number(minChunkSize),
  } as const
  for (const [index, descriptor] of manifest.layers.entries()) {
    const prioritizedPaths = (paths: readonly string[]) =>
      paths.filter((_, at) => isPicked(at, Number(share)))
    const wanted = {...options, prioritizedPaths}
    const diffId = config.rootfs.diff_ids[index]
    const first = await convertLayer({content: source.content, descriptor, diffId}, options)
    const {annotations: _, ...plain} = first.descriptor
    const convert = (from: typeof plain) =>
      convertLayer({content: store.content, descriptor: from, diffId: first.diffId}, wanted)
    const [fromPlain, fromLazy] = [
      await measured(total.plain, () => convert(plain)),
      await measured(total.again, () => convert(first.descriptor)),
    ]
    if (fromPlain.descriptor.digest !== fromLazy.descriptor.digest)
      throw new Error('The bytes are not the same')
    total.members += fromLazy.counts.members
    total.moved += fromLazy.counts.movedMembers
    total.size += fromLazy.descriptor.size
  }
  console.log(JSON.stringify(total, (_, value) => (typeof value === 'number' ? Math.round(value) : value)))
} finally {
  await rm(directory, {recursive: true})
}

/** Some of many, the same each time, with no pattern in their order. */
function isPicked(index: number, wantedShare: number): boolean {
  return (Math.imul(index + 1, 2_654_435_761) >>> 0) / 2 ** 32 < wantedShare
}

/** Adds milliseconds of wall clock and of all cores to `times`. */
async function measured(
  times: {wall: number; cpu: number},
  work: () => Promise<ConvertedBlob>,
): Promise<ConvertedBlob> {
  const [started, before] = [performance.now(), process.cpuUsage()]
  const result = await work()
  const {user, system} = process.cpuUsage(before)
  times.wall += performance.now() - started
  times.cpu += (user + system) / 1000
  return result
}
