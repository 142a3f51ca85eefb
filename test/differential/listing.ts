// What a tree has, one line a place: the same for a directory on disk as for a tree in memory. Without the root, which
// every unpacker makes in its own way, and without times of directories, some of which nothing describes.

import {execFileSync} from 'node:child_process'
import {lstatSync, readdirSync, readFileSync, readlinkSync} from 'node:fs'
import {join} from 'node:path'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import type {DirectoryNode, FileNode} from '../../src/lib/vfs/file-tree.ts'
import {ADDED_FILES} from '../support/unpacked-tree.ts'

export type Listing = readonly string[]

interface Line {
  readonly path: string
  readonly kind: string
  readonly mode: number
  readonly owner: string
  readonly mtime: string
  readonly link: string
  readonly device: string
  /** Of its contents. */
  readonly digest: string
  /** The first path of the same file. */
  readonly first: string
  /** `name=0x00`, in hexadecimal. */
  readonly xattrs: readonly string[]
}

function format({path, kind, mode, owner, mtime, link, device, digest, first, xattrs}: Line): string {
  // overlayfs looks at nothing else of a whiteout.
  if (kind === 'char' && device === '0:0') return `${path} whiteout`
  const isDirectory = kind === 'dir'
  return [
    path,
    kind,
    kind === 'symlink' ? '' : (mode & 0o7777).toString(8),
    owner,
    isDirectory ? '' : mtime,
    link,
    kind === 'char' || kind === 'block' ? device : '',
    digest,
    isDirectory || first === path ? '' : `= ${first}`,
    ...[...xattrs].sort(),
  ].join(' ')
}

/** The trees on disk at `directories` of `base`, but for what conversion adds. One process reads the attributes of all. */
export function listDirectories(base: string, directories: readonly string[]): Listing[] {
  const xattrs = xattrsBelow(base, directories)
  return directories.map(directory => listDirectory(base, directory, xattrs))
}

function listDirectory(base: string, directory: string, xattrs: ReadonlyMap<string, string[]>): Listing {
  const root = join(base, directory)
  const lines: string[] = []
  const firsts = new Map<bigint, string>()
  const visit = (path: string) => {
    const at = join(root, path)
    const status = lstatSync(at, {bigint: true})
    const kind = kindOf(Number(status.mode) & 0o170000)
    const first = firsts.get(status.ino) ?? path
    firsts.set(status.ino, first)
    lines.push(
      format({
        path,
        kind,
        mode: Number(status.mode),
        owner: `${status.uid}:${status.gid}`,
        mtime: timeOf(status.mtimeNs),
        link: kind === 'symlink' ? readlinkSync(at) : '',
        device: `${majorOf(status.rdev)}:${minorOf(status.rdev)}`,
        digest: kind === 'reg' ? digestOf(readFileSync(at)) : '',
        first,
        xattrs: xattrs.get(`${directory}/${path}`) ?? [],
      }),
    )
    if (kind === 'dir') for (const name of readdirSync(at).sort()) visit(join(path, name))
  }
  for (const name of readdirSync(root).sort()) if (!ADDED_FILES.includes(name)) visit(name)
  return lines
}

function timeOf(nanoseconds: bigint): string {
  const fraction = ((nanoseconds % NANOSECONDS) + NANOSECONDS) % NANOSECONDS
  return `${(nanoseconds - fraction) / NANOSECONDS}.${String(fraction).padStart(9, '0')}`
}

const NANOSECONDS = 1_000_000_000n

/** How the C library puts the two numbers of a device into one. */
function majorOf(device: bigint): bigint {
  return ((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n)
}

function minorOf(device: bigint): bigint {
  return (device & 0xffn) | ((device >> 12n) & 0xffffff00n)
}

/** Those that layers may bring, by path. */
function xattrsBelow(base: string, directories: readonly string[]): ReadonlyMap<string, string[]> {
  // With no directory it would read standard input.
  if (directories.length === 0) return new Map()
  const options = ['-R', '-P', '-h', '-d', '-m', '^(trusted|user|security.capability)', '-e', 'hex']
  const dump = execFileSync('getfattr', [...options, '--', ...directories], {
    cwd: base,
    encoding: 'latin1',
    maxBuffer: 1 << 26,
  })
  const blocks = dump.split('\n\n').filter(Boolean)
  return new Map(
    blocks.map(block => {
      const [header = '', ...lines] = block.trim().split('\n')
      return [unescapeName(header.slice('# file: '.length)), lines]
    }),
  )
}

/** A name in Latin-1, of which getfattr writes some bytes in octal. */
function unescapeName(name: string): string {
  const bytes = name.replaceAll(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)))
  return Buffer.from(bytes, 'latin1').toString()
}

/** S_IFMT's values; no object literal, whose octal keys Biome's formatter turns into other numbers. */
const KINDS = new Map([
  [0o040000, 'dir'],
  [0o100000, 'reg'],
  [0o120000, 'symlink'],
  [0o020000, 'char'],
  [0o060000, 'block'],
  [0o010000, 'fifo'],
])

function kindOf(type: number): string {
  return KINDS.get(type) ?? `type ${type.toString(8)}`
}

/** The tree in memory; `digestAt` is of the contents of a file with some, by where they start. */
export function listTree(root: DirectoryNode, digestAt: (dataOffset: number) => string): Listing {
  const lines: string[] = []
  const firsts = new Map<FileNode, string>()
  const visit = (path: string, node: FileNode) => {
    const first = firsts.get(node) ?? path
    firsts.set(node, first)
    const isFile = node.type === 'reg'
    lines.push(
      format({
        path,
        kind: node.type,
        mode: node.mode,
        owner: `${node.uid}:${node.gid}`,
        mtime: `${node.mtimeSeconds}.${String(node.mtimeNanoseconds).padStart(9, '0')}`,
        link: node.type === 'symlink' ? node.linkName : '',
        device: `${node.devMajor}:${node.devMinor}`,
        digest: isFile ? (node.size > 0 ? digestAt(node.dataOffset) : digestOf('')) : '',
        first,
        xattrs: [...(node.xattrs ?? [])].map(
          ([name, value]) => `${name}=0x${Buffer.from(value).toString('hex')}`,
        ),
      }),
    )
    if (node.type !== 'dir') return
    for (const name of [...node.children.keys()].sort()) visit(join(path, name), node.children.get(name)!)
  }
  for (const name of [...root.children.keys()].sort()) visit(name, root.children.get(name)!)
  return lines
}
