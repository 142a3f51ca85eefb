// Trees nobody thought of: random ones, through both backends, against plain copies.

import {mkdir, open, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {expect, it} from 'vitest'
import {decodeByteText, encodeByteText} from '../../src/lib/io/byte-text.ts'
import {extractTree} from '../../src/lib/rootfs/extract-tree.ts'
import {
  type DirectoryNode,
  type FileNode,
  opaqueDirectory,
  whiteoutNode,
} from '../../src/lib/vfs/file-tree.ts'
import {createRandom, type Random} from '../support/random.ts'
import {describeWith} from '../support/requires.ts'
import {describeTree} from './describe-tree.ts'
import {describeBackends, openBackend} from './open-backend.ts'
import {type Attributes, createLayerBuilder, directory, node, type SampleLayer} from './sample-layer.ts'

const SEEDS = 4

function randomLayer(seed: number): SampleLayer {
  const random = createRandom(seed + 77)
  const {file, layer} = createLayerBuilder()
  const files: FileNode[] = []
  const make = (depth: number): FileNode => {
    const attributes = randomAttributes(random)
    switch (random(depth > 0 ? 12 : 9)) {
      case 0:
        return node('symlink', {
          ...attributes,
          mode: 0o777,
          linkName: randomName(random).repeat(1 + random(8)),
        })
      case 1:
        return node('char', {...attributes, devMajor: random(4096), devMinor: random(2 ** 20)})
      case 2:
        return node('fifo', attributes)
      case 3:
        return whiteoutNode()
      case 4:
        // A hard link, if there is something to link to.
        return files[random(files.length || 1)] ?? node('fifo', attributes)
      case 5:
      case 6:
      case 7:
      case 8: {
        const made = file({size: random(4) * random(9000)}, attributes)
        files.push(made)
        return made
      }
      default:
        return random(5) === 0 ? opaqueDirectory(makeDirectory(depth - 1)) : makeDirectory(depth - 1)
    }
  }
  const makeDirectory = (depth: number): DirectoryNode => {
    const children: Record<string, FileNode> = {}
    for (let count = 2 + random(12); count > 0; count--) children[randomName(random)] = make(depth)
    return directory(children, randomAttributes(random))
  }
  return layer(makeDirectory(5))
}

/** Any bytes that a name may have; never a dot alone, and no symlink's target that is empty. */
function randomName(random: Random): string {
  const size = 1 + random(random(4) === 0 ? 120 : 12)
  const bytes = Array.from({length: size}, () => 1 + random(255)).map(byte => (byte === 0x2f ? 0x5f : byte))
  const name = decodeByteText(Uint8Array.from(bytes))
  return encodeByteText(name).every(byte => byte === 0x2e) ? `${name}x` : name
}

function randomAttributes(random: Random): Attributes {
  const xattrs = Array.from(
    {length: random(6) === 0 ? 1 + random(4) : 0},
    (_, index): [string, Uint8Array] => [
      `trusted.${index}${'n'.repeat(random(30))}`,
      Uint8Array.from({length: random(50)}, () => random(256)),
    ],
  )
  return {
    mode: random(0o10000),
    uid: random(2) * random(2 ** 31),
    gid: random(2) * random(2 ** 31),
    mtimeSeconds: random(2 ** 31) - 2 ** 30,
    mtimeNanoseconds: random(1_000_000_000),
    xattrs: xattrs.length > 0 ? new Map(xattrs) : undefined,
  }
}

describeWith(['root', 'getfattr'], 'random trees', () => {
  describeBackends(kind => {
    it('are what plain copies would be', async () => {
      const backend = await openBackend(kind)
      for (let seed = 0; seed < SEEDS; seed++) {
        const layer = randomLayer(seed)
        const [data, plain] = [`whole-${seed}`, `plain-${seed}`].map(name =>
          join(backend.directory, name),
        ) as [string, string]
        await writeFile(data, layer.data(0, layer.size))
        await mkdir(plain)
        await using whole = await open(data)
        await extractTree(layer.root, plain, () => whole)
        const {path} = await backend.mount(layer, `layer-${seed}`)
        expect(await describeTree(path), `seed ${seed}`).toEqual(await describeTree(plain))
      }
    })
  })
})
