import {describe, expect, it} from 'vitest'
import {encodeErofs} from '../../src/lib/erofs/encode-image.ts'
import {ErofsReader} from '../../src/lib/erofs/image-reader.ts'
import {type DirectoryNode, type FileNode, plainDirectory} from '../../src/lib/vfs/file-tree.ts'

function node(attributes: Partial<FileNode>): FileNode {
  const {children, ...plain} = plainDirectory()
  return {...plain, type: 'reg', mode: 0o644, ...attributes} as FileNode
}

function directoryOf(children: Iterable<readonly [string, FileNode]>): DirectoryNode {
  return {...plainDirectory(), children: new Map(children)}
}

async function readerOf(root: DirectoryNode): Promise<ErofsReader> {
  const image = encodeErofs(root, {blockSize: 4096, dataSize: 2 ** 30})
  return ErofsReader.open(async (offset, length) => image.subarray(offset, offset + length))
}

const nameOf = (text: string) => new TextEncoder().encode(text)

describe('a reader of EROFS images', () => {
  it('finds every name of directories of all sizes, and where the data are', async () => {
    for (const count of [1, 3, 90, 100, 1000, 5000]) {
      const files = Array.from({length: count}, (_, index) => {
        const name = `${'x'.repeat(index % 50)}${index}`
        return [name, node({size: index + 1, dataOffset: index * 4096})] as const
      })
      const reader = await readerOf(directoryOf(files))
      const root = await reader.root()
      for (const [name, {size, dataOffset}] of files) {
        expect(await reader.find(root, nameOf(name)), name).toMatchObject({type: 'reg', size, dataOffset})
      }
      expect(await reader.find(root, nameOf('missing'))).toBeUndefined()
    }
  })

  it('reads targets of all lengths, also behind extended attributes', async () => {
    const xattrs = new Map([['user.some', new Uint8Array(100)]])
    for (const length of [1, 50, 3900, 4000, 4095]) {
      const link = node({type: 'symlink', linkName: 't'.repeat(length), xattrs})
      const reader = await readerOf(directoryOf([['link', link]]))
      const found = (await reader.find(await reader.root(), nameOf('link')))!
      expect(found.type).toBe('symlink')
      expect(Buffer.from(await reader.target(found)).toString()).toBe('t'.repeat(length))
    }
  })

  it('tells kinds apart', async () => {
    const kinds = ['char', 'block', 'fifo', 'dir'] as const
    const nodes = kinds.map(
      type => [type, type === 'dir' ? directoryOf([]) : node({type, devMajor: 0, devMinor: 0})] as const,
    )
    const reader = await readerOf(directoryOf(nodes))
    for (const type of kinds) {
      expect(await reader.find(await reader.root(), nameOf(type))).toMatchObject({type})
    }
  })
})
