import {describe, expect, it} from 'vitest'
import {encodeTree, type OpaqueMarks} from '../../src/lib/fuse-tree/tree-encode.ts'
import {
  COUNT,
  FIRST,
  findChild,
  INODE_WORDS,
  isDirectory,
  isFile,
  LINKS,
  linkTargetOf,
  MODE,
  MTIME,
  MTIME_NANOSECONDS,
  NOT_FOUND,
  nameStart,
  openTreeTable,
  PARENT,
  SIZE,
  sizeOf,
  type TreeTable,
  wordOf,
  xattrNamesOf,
  xattrOf,
} from '../../src/lib/fuse-tree/tree-table.ts'
import {decodeByteText, encodeByteText} from '../../src/lib/io/byte-text.ts'
import {
  type DirectoryNode,
  type FileNode,
  opaqueDirectory,
  plainDirectory,
  type TreeNode,
  whiteoutNode,
} from '../../src/lib/vfs/file-tree.ts'

type Child = readonly [string, FileNode]

function directory(...children: Child[]): DirectoryNode {
  return {...plainDirectory(), children: new Map(children)}
}

function file(fields: Partial<Omit<TreeNode, 'type'>> = {}): FileNode {
  return {...whiteoutNode(), type: 'reg', mode: 0o644, ...fields}
}

function symlink(linkName: string): FileNode {
  return {...whiteoutNode(), type: 'symlink', mode: 0o777, linkName} as FileNode
}

function tableOf(root: DirectoryNode, opaque: OpaqueMarks = 'trusted', dataSize = 2 ** 43): TreeTable {
  return openTreeTable(encodeTree(root, {opaque, dataSize}))
}

function child(table: TreeTable, name: string, parent = 0): number {
  return findChild(table, parent, encodeByteText(name))
}

function namesOf(table: TreeTable, inode: number): string[] {
  const first = wordOf(table, inode, FIRST)
  return Array.from({length: wordOf(table, inode, COUNT)}, (_, index) =>
    decodeByteText(table.bytes.slice(nameStart(table, first + index), table.ends[first + index])),
  )
}

const text = (bytes: Uint8Array | undefined) => bytes && Buffer.from(bytes).toString('latin1')

describe('a tree as tables', () => {
  it('finds every name of a directory, and only those', () => {
    const names = Array.from({length: 1000}, (_, index) => `name-${index * 7}`)
    const table = tableOf(directory(...names.map(name => [name, file()] as const)))
    const inodes = names.map(name => child(table, name))
    expect(new Set(inodes).size).toBe(1000)
    expect(inodes).not.toContain(NOT_FOUND)
    expect(['name-', 'name-1', 'name-00', 'name-6993x', '', 'zzz'].map(name => child(table, name))).toEqual(
      Array(6).fill(NOT_FOUND),
    )
  })

  it('sorts names by their bytes, whatever they are in UTF-16', () => {
    const names = ['\u{10000}', '\uffee', 'é', decodeByteText(Uint8Array.of(0xff, 0x80)), 'z', 'Z', 'Zz', ' ']
    const table = tableOf(directory(...names.map(name => [name, file()] as const)))
    const bytes = namesOf(table, 0).map(encodeByteText)
    expect(bytes).toEqual([...bytes].sort(Buffer.compare))
    for (const name of names) expect(child(table, name)).not.toBe(NOT_FOUND)
  })

  it('does not find the names of one directory in another', () => {
    const table = tableOf(directory(['a', directory(['x', file()])], ['b', directory(['y', file()])]))
    expect(child(table, 'x', child(table, 'a'))).not.toBe(NOT_FOUND)
    expect(child(table, 'y', child(table, 'a'))).toBe(NOT_FOUND)
    expect(child(table, 'x')).toBe(NOT_FOUND)
    expect(namesOf(table, child(table, 'b'))).toEqual(['y'])
  })

  it('gives hard links one inode, and counts them', () => {
    const shared = file({size: 3})
    const table = tableOf(directory(['a', shared], ['d', directory(['b', shared], ['c', file()])]))
    const inode = child(table, 'a')
    expect(child(table, 'b', child(table, 'd'))).toBe(inode)
    expect(wordOf(table, inode, LINKS)).toBe(2)
    expect(wordOf(table, child(table, 'c', child(table, 'd')), LINKS)).toBe(1)
  })

  it('counts the links of directories as Linux does, and knows their parents', () => {
    const table = tableOf(directory(['a', directory(['b', directory()])], ['c', directory()], ['f', file()]))
    const a = child(table, 'a')
    expect([0, a, child(table, 'c')].map(inode => wordOf(table, inode, LINKS))).toEqual([4, 3, 2])
    expect(wordOf(table, child(table, 'b', a), PARENT)).toBe(a)
    expect(wordOf(table, 0, PARENT)).toBe(0)
  })

  it('keeps type, mode, owner, device and times', () => {
    const device = {
      ...whiteoutNode(),
      type: 'block',
      mode: 0o4755,
      devMajor: 259,
      devMinor: 70000,
    } as FileNode
    const old = file({uid: 2 ** 32 - 2, mtimeSeconds: -86400 * 365 * 100, mtimeNanoseconds: 999999999})
    const table = tableOf(directory(['device', device], ['old', old]))
    const inode = child(table, 'device')
    expect(wordOf(table, inode, MODE)).toBe(0o064755)
    expect([wordOf(table, inode, FIRST), wordOf(table, inode, COUNT)]).toEqual([259, 70000])
    const times = new DataView(table.words.buffer, table.words.byteOffset)
    const at = 4 * (child(table, 'old') * INODE_WORDS + MTIME)
    expect(times.getBigInt64(at, true)).toBe(-86400n * 365n * 100n)
    expect(wordOf(table, child(table, 'old'), MTIME_NANOSECONDS)).toBe(999999999)
    expect([isDirectory(table, 0), isFile(table, 0), isFile(table, child(table, 'old'))]).toEqual([
      true,
      false,
      true,
    ])
  })

  it('keeps sizes and offsets beyond 32 bits', () => {
    const size = 5 * 2 ** 32 + 7
    const table = tableOf(directory(['big', file({size, dataOffset: 2 ** 40 + 4096})]))
    const inode = child(table, 'big')
    expect([sizeOf(table, inode, SIZE), sizeOf(table, inode, FIRST)]).toEqual([size, 2 ** 40 + 4096])
  })

  it('keeps the targets of symlinks, also those that are not UTF-8', () => {
    const target = `${'x/'.repeat(2000)}${decodeByteText(Uint8Array.of(0xc3, 0x28))}`
    const table = tableOf(directory(['l', symlink(target)]))
    const inode = child(table, 'l')
    expect(decodeByteText(linkTargetOf(table, inode).slice())).toBe(target)
    expect(sizeOf(table, inode, SIZE)).toBe(4002)
  })

  it('keeps extended attributes, and equal lists once', () => {
    const xattrs = new Map([
      ['user.a', Buffer.from('one')],
      ['security.capability', Buffer.from([1, 0, 0, 2])],
      ['user.empty', new Uint8Array(0)],
    ])
    const names = Array.from({length: 500}, (_, index) => `file-${index}`)
    const table = tableOf(directory(...names.map(name => [name, file({xattrs})] as const), ['none', file()]))
    const inode = child(table, 'file-7')
    expect(text(xattrNamesOf(table, inode))).toBe('user.a\0security.capability\0user.empty\0')
    expect(text(xattrOf(table, inode, Buffer.from('user.a')))).toBe('one')
    expect(text(xattrOf(table, inode, Buffer.from('user.empty')))).toBe('')
    expect(xattrOf(table, inode, Buffer.from('user'))).toBeUndefined()
    expect(xattrNamesOf(table, child(table, 'none'))).toHaveLength(0)
    expect(xattrOf(table, child(table, 'none'), Buffer.from('user.a'))).toBeUndefined()
    expect(table.bytes.length).toBeLessThan(500 * 8 + 200)
  })

  it.each([
    ['trusted', 'trusted.overlay.opaque\0'],
    ['user', 'user.overlay.opaque\0'],
    ['both', 'trusted.overlay.opaque\0user.overlay.opaque\0'],
  ] as const)('marks opaque directories for overlayfs that reads %s attributes', (opaque, expected) => {
    const table = tableOf(directory(['d', opaqueDirectory(plainDirectory())], ['e', directory()]), opaque)
    expect(text(xattrNamesOf(table, child(table, 'd')))).toBe(expected)
    expect(text(xattrNamesOf(table, child(table, 'e')))).toBe('')
  })

  it('numbers a tree by its names, not by the order in which it was built', () => {
    const build = (names: string[]) =>
      directory(...names.map(name => [name, directory(['x', file()], ['y', file()])] as const))
    const [one, two] = [build(['a', 'b', 'c']), build(['c', 'a', 'b'])].map(root =>
      Buffer.from(encodeTree(root, {opaque: 'trusted', dataSize: 0})),
    )
    expect(Buffer.compare(one!, two!)).toBe(0)
  })

  it('holds an empty layer', () => {
    const table = tableOf(plainDirectory())
    expect([table.inodes, namesOf(table, 0), child(table, 'a')]).toEqual([1, [], NOT_FOUND])
  })

  it('holds 30,000 files in two megabytes', () => {
    const root = directory(
      ...Array.from({length: 300}, (_, index): Child => {
        const files = Array.from({length: 99}, (_, file_): Child => [`module-${file_}.py`, file({size: 100})])
        return [`package-${index}`, directory(...files)]
      }),
    )
    expect(encodeTree(root, {opaque: 'trusted', dataSize: 100}).byteLength).toBeLessThan(2.3e6)
  })
})

describe('a tree that Linux could not hold', () => {
  const nested = directory()
  it.each<[string, DirectoryNode]>([
    ['a name of 256 bytes', directory(['é'.repeat(128), file()])],
    ['an empty name', directory(['', file()])],
    ['a dot', directory(['.', file()])],
    ['two dots', directory(['..', file()])],
    ['a slash in a name', directory(['a/b', file()])],
    ['a NUL in a name', directory(['a\0', file()])],
    ['a directory with two names', directory(['a', nested], ['b', nested])],
    ['a symlink to 4096 bytes', directory(['l', symlink('x'.repeat(4096))])],
    ['an owner of 33 bits', directory(['f', file({uid: 2 ** 32})])],
    ['a negative owner', directory(['f', file({gid: -1})])],
    ['a device of 13 bits', directory(['f', {...whiteoutNode(), devMajor: 4096} as FileNode])],
    ['a large attribute', directory(['f', file({xattrs: new Map([['user.a', new Uint8Array(65537)]])})])],
    ['a long attribute', directory(['f', file({xattrs: new Map([['u'.repeat(256), new Uint8Array(1)]])})])],
    ['an attribute without name', directory(['f', file({xattrs: new Map([['', new Uint8Array(1)]])})])],
    [
      'too many attributes',
      directory([
        'f',
        file({
          xattrs: new Map(
            Array.from({length: 300}, (_, index) => [`user.${index}${'x'.repeat(240)}`, new Uint8Array(1)]),
          ),
        }),
      ]),
    ],
  ])('is refused: %s', (_, root) => {
    expect(() => tableOf(root)).toThrow(expect.objectContaining({code: 'unsupported'}))
  })

  it('is refused when its data lie beyond the device', () => {
    const root = directory(['f', file({size: 4097, dataOffset: 4096})])
    expect(() => tableOf(root, 'trusted', 8192)).toThrow(expect.objectContaining({code: 'invalid-argument'}))
    expect(tableOf(root, 'trusted', 8193).inodes).toBe(2)
  })
})
