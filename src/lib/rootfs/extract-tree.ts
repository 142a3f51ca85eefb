// Unpacking a layer's tree from its tar into a directory: for kernels that cannot mount it in place. The tree runs through
// directories only and the target starts empty, so nothing can lead out of it.

import {chmod, type FileHandle, lchown, link, mkdir, open, symlink} from 'node:fs/promises'
import {join} from 'node:path'
import {CodedError} from '../errors/coded-error.ts'
import {encodeByteText} from '../io/byte-text.ts'
import {makeNode, setTimes, setXattr} from '../native/system-calls.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {DirectoryNode, FileNode} from '../vfs/file-tree.ts'

/** File type bits of mknod(2). */
const NODE_TYPES = {char: 0o020000, block: 0o060000, fifo: 0o010000} as const
/** File contents are copied this much at a time, bytes. */
const COPY_SIZE = 1 << 20

/**
 * Makes the tree `root` in the empty directory `target`; `tarOf` says which file a node's data is in. Needs root.
 */
export async function extractTree(
  root: DirectoryNode,
  target: string,
  tarOf: (node: FileNode) => FileHandle,
  options: CallOptions = {},
): Promise<void> {
  await extractDirectory(root, target, {tarOf, made: new Map(), ...options})
}

interface Extraction extends CallOptions {
  readonly tarOf: (node: FileNode) => FileHandle
  /** Where a node is already: its other names are hard links to it. */
  readonly made: Map<FileNode, string>
}

async function extractDirectory(
  directory: DirectoryNode,
  path: string,
  extraction: Extraction,
): Promise<void> {
  const {made, tarOf, signal} = extraction
  for (const [name, node] of directory.children) {
    signal?.throwIfAborted()
    const childPath = join(path, name)
    const first = made.get(node)
    if (first !== undefined) {
      await link(bytesOf(first), bytesOf(childPath))
      continue
    }
    made.set(node, childPath)
    if (node.type === 'dir') {
      await mkdir(bytesOf(childPath), {mode: 0o700})
      await extractDirectory(node, childPath, extraction)
    } else {
      await extractFile(node, childPath, tarOf)
      await setAttributes(node, childPath)
    }
  }
  // Last, because what is made in a directory changes its time.
  await setAttributes(directory, path)
}

async function extractFile(
  node: Exclude<FileNode, DirectoryNode>,
  path: string,
  tarOf: (node: FileNode) => FileHandle,
): Promise<void> {
  switch (node.type) {
    case 'reg':
      return copyData(node, tarOf(node), path)
    case 'symlink':
      return symlink(bytesOf(node.linkName), bytesOf(path))
    default:
      makeNode(path, NODE_TYPES[node.type] | 0o600, node.devMajor, node.devMinor)
  }
}

async function copyData(
  node: Pick<FileNode, 'size' | 'dataOffset'>,
  source: FileHandle,
  path: string,
): Promise<void> {
  await using file = await open(bytesOf(path), 'wx', 0o600)
  const buffer = Buffer.allocUnsafe(Math.min(COPY_SIZE, node.size))
  for (let done = 0; done < node.size; ) {
    const wanted = Math.min(COPY_SIZE, node.size - done)
    const {bytesRead} = await source.read(buffer, 0, wanted, node.dataOffset + done)
    if (bytesRead === 0)
      throw new CodedError('corrupt', `Cannot unpack ${JSON.stringify(path)}: its tar is cut short`)
    await file.writeFile(buffer.subarray(0, bytesRead))
    done += bytesRead
  }
}

/** Owner before mode and extended attributes, because chown clears set-id bits and capabilities. */
async function setAttributes(node: FileNode, path: string): Promise<void> {
  await lchown(bytesOf(path), node.uid, node.gid)
  if (node.type !== 'symlink') await chmod(bytesOf(path), node.mode)
  for (const [name, value] of node.xattrs ?? []) setXattr(path, name, value)
  setTimes(path, node.mtimeSeconds, node.mtimeNanoseconds)
}

/** Names are bytes, and need not be UTF-8. */
function bytesOf(path: string): Buffer {
  return Buffer.from(encodeByteText(path))
}
