import {describe, expect, it} from 'vitest'
import {encodeErofs} from '../../src/lib/erofs/encode-image.ts'
import {ErofsReader} from '../../src/lib/erofs/image-reader.ts'
import {ImageFiles} from '../../src/lib/program/image-files.ts'
import {type DirectoryNode, type FileNode, plainDirectory} from '../../src/lib/vfs/file-tree.ts'

/** Files by path; a text is a symlink, a number a file of that size, `null` a whiteout. */
type Sketch = Readonly<Record<string, string | number | null>>

function treeOf(sketch: Sketch): DirectoryNode {
  const {children: _, ...plain} = plainDirectory()
  const root = {...plainDirectory(), children: new Map<string, FileNode>()}
  for (const [path, what] of Object.entries(sketch)) {
    const parts = path.split('/')
    let at = root
    for (const part of parts.slice(0, -1)) {
      const next = at.children.get(part) ?? {...plainDirectory(), children: new Map()}
      at.children.set(part, next)
      at = next as typeof root
    }
    const kind =
      typeof what === 'string'
        ? {type: 'symlink', linkName: what}
        : what === null
          ? {type: 'char', devMajor: 0, devMinor: 0}
          : {type: 'reg', size: what, dataOffset: 0}
    at.children.set(parts.at(-1)!, {...plain, ...kind} as FileNode)
  }
  return root
}

/** Layers, topmost first. */
async function filesOf(...layers: readonly Sketch[]): Promise<ImageFiles<number>> {
  const trees = layers.map(async (sketch, layer) => {
    const image = encodeErofs(treeOf(sketch), {blockSize: 4096, dataSize: 1 << 20})
    return {layer, tree: await ErofsReader.open(async (at, length) => image.subarray(at, at + length))}
  })
  return new ImageFiles(await Promise.all(trees))
}

const BASE = {bin: 'usr/bin', 'usr/bin/sh': 'dash', 'usr/bin/dash': 5, 'etc/passwd': 1, 'lib/old': 2}

describe('files of an image, by path', () => {
  it('are found through symbolic links of every layer', async () => {
    const files = await filesOf(
      {'opt/app': '/bin/tool', 'usr/bin/tool': 7, 'opt/up': '../opt/../bin/sh'},
      BASE,
    )
    expect(await files.find('/bin/sh')).toMatchObject({layer: 1, size: 5, path: '/usr/bin/dash'})
    expect(await files.find('/opt/app')).toMatchObject({layer: 0, size: 7, path: '/usr/bin/tool'})
    expect(await files.find('/opt/up')).toMatchObject({layer: 1, size: 5})
    expect(await files.find('/../etc/./passwd')).toMatchObject({layer: 1, size: 1})
  })

  it('are those of the topmost layer that has them, unless it says that they are gone', async () => {
    const files = await filesOf({'etc/passwd': 3, lib: null, 'usr/bin/dash': null}, BASE)
    expect(await files.find('/etc/passwd')).toMatchObject({layer: 0, size: 3})
    expect(await files.find('/lib/old')).toBeUndefined()
    expect(await files.find('/bin/sh')).toBeUndefined()
  })

  it('are not found where there are none, in circles, or below what is no directory', async () => {
    const files = await filesOf({a: 'b', b: 'a', self: 'self/self', loop: '/loop/x', file: 1})
    for (const path of ['/a', '/self', '/loop', '/none', '/file/x', '/', '']) {
      expect(await files.find(path), path).toBeUndefined()
    }
  })
})
