// A real layer all the way: a tar converted to eStargz, and mounted from its TOC while its blob is read in pieces.

import {mkdir, open, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {gunzipSync} from 'node:zlib'
import {expect, it, onTestFinished} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {GZIP_DECOMPRESSORS} from '../../src/lib/estargz/decompressor.ts'
import {createNativeParser} from '../../src/lib/layer/native-parser.ts'
import {treeOfToc} from '../../src/lib/layer/toc-tree.ts'
import {extractTree} from '../../src/lib/rootfs/extract-tree.ts'
import {payloadOffsetOf} from '../../src/lib/tar/tar-entry.ts'
import {placeLayer} from '../../src/lib/vfs/layer-places.ts'
import {treeOfLayer} from '../../src/lib/vfs/layer-tree.ts'
import {entriesOf} from '../support/layers.ts'
import {lazyLayerOf, openTestCache, openTestData, prepareLayer, watchedBlob} from '../support/lazy-layers.ts'
import {describeWith} from '../support/requires.ts'
import {archive, directory, member, pax} from '../support/tar.ts'
import {createBackend} from './create-backend.ts'
import {describeTree, type TreeDescription} from './describe-tree.ts'
import {describeBackends, mountDirectory} from './open-backend.ts'
import {CAPABILITY} from './rich-tree.ts'
import {pattern} from './sample-layer.ts'

const CONTENTS = new Map<string, Uint8Array>([
  ['usr/bin/tool', pattern(7, 300_000)],
  ['usr/lib/data', pattern(11, 1_234_567)],
  ['usr/capable', Buffer.from('c')],
  ['etc/first', Buffer.from('read first')],
  ['etc/empty', new Uint8Array(0)],
])
const contentOf = (name: string) => CONTENTS.get(name)!

const TAR = archive(
  directory('./'),
  member({name: 'usr/', typeflag: '5', mode: 0o2755, gid: 5, mtime: 1_000_000_000}),
  member({name: 'usr/bin/tool', mode: 0o4755, mtime: 1_500_000_000}, contentOf('usr/bin/tool')),
  member({name: 'usr/bin/also-tool', typeflag: '1', linkName: 'usr/bin/tool'}),
  member({name: 'usr/lib/data', uid: 1000, gid: 1000}, contentOf('usr/lib/data')),
  pax({'SCHILY.xattr.security.capability': CAPABILITY}),
  member({name: 'usr/capable', mode: 0o755}, contentOf('usr/capable')),
  member({name: 'usr/link', typeflag: '2', linkName: '../usr/bin/tool'}),
  member({name: 'etc/first'}, contentOf('etc/first')),
  member({name: 'etc/empty', mode: 0o600}),
  member({name: 'etc/.wh.removed'}),
  member({name: 'opaque/.wh..wh..opq'}),
  member({name: 'dev/null', typeflag: '3', devMajor: 1, devMinor: 3, mode: 0o666}),
  member({name: 'run/pipe', typeflag: '6'}),
)

/** What unpacking the tar gives, with whiteouts as overlayfs has them. */
async function plainCopy(base: string): Promise<TreeDescription> {
  await writeFile(join(base, 'tar'), TAR)
  await mkdir(join(base, 'plain'))
  await using tar = await open(join(base, 'tar'))
  const tree = treeOfLayer(placeLayer(entriesOf(TAR)).entries, payloadOffsetOf)
  await extractTree(tree, join(base, 'plain'), () => tar)
  return describeTree(join(base, 'plain'))
}

describeWith(['root', 'getfattr'], 'an eStargz layer', () => {
  describeBackends(kind => {
    it('is the tree of its tar, without landmark and TOC', async () => {
      const base = await mountDirectory()
      const prepared = await prepareLayer(TAR, CONTENTS, {chunkSize: 50_000, prioritizedPaths: ['etc/first']})
      expect(entriesOf(gunzipSync(prepared.bytes)).map(({name}) => name)).toContain('.prefetch.landmark')
      const data = await openTestData(await openTestCache(join(base, 'cache')), 'a1', prepared)
      onTestFinished(() => data[Symbol.asyncDispose]())
      const blob = watchedBlob(prepared.bytes)
      const lazy = lazyLayerOf(prepared, data, blob)

      const silent = () => {}
      const log = {info: silent, warn: silent, debug: silent}
      const backend = await createBackend(kind, {directory: base, log})
      onTestFinished(() => backend.close('unmount'))
      const mountpoint = join(base, 'layer')
      await mkdir(mountpoint)
      const mountable = {
        device: lazy,
        isComplete: () => false,
        image: async () => {
          const {parse} = createNativeParser({decompressors: GZIP_DECOMPRESSORS})
          const task = {
            where: 'the layer',
            blobSize: prepared.bytes.length,
            tail: prepared.bytes,
            externalToc: undefined,
            tocDigest: undefined,
            wantsImage: true,
          }
          const {image} = await parse(task, {})
          await writeFile(join(base, 'image'), image!)
          return join(base, 'image')
        },
        isOptimized: false,
        hasPlan: false,
        tree: async () => treeOfToc(prepared.open.files.values(), prepared.layout),
        state: () => ({digest: digestOf(prepared.bytes), size: blob.size, fetchedSize: 0, error: undefined}),
      }
      await backend.mount(mountable, mountpoint, {})
      onTestFinished(() => backend.unmount(mountpoint))
      expect(blob.reads).toEqual([])
      const plain = await plainCopy(base)
      expect(Object.keys(plain)).toContain('etc/removed')
      expect(await describeTree(mountpoint)).toEqual(plain)
      expect(blob.reads.length).toBeGreaterThan(0)
    })
  })
})
