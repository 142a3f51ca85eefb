// An image as a writable root file system: layers stacked by overlayfs, each mounted in place over its decompressed tar
// where the kernel can, unpacked otherwise.

import {type FileHandle, mkdir, open, rm, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {encodeErofs} from '../erofs/encode-image.ts'
import {canMountErofs, EXACT_READ_AHEAD_KB, mountErofs} from '../mount/mount-erofs.ts'
import {mountOverlay, mountTmpfs, unmountBelow} from '../mount/mounts.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {MANY_FILES} from '../tar/memory-care.ts'
import {payloadOffsetOf, type TarEntry} from '../tar/tar-entry.ts'
import type {DirectoryNode, FileNode} from '../vfs/file-tree.ts'
import {type PlacedLayer, placeLayer} from '../vfs/layer-places.ts'
import {treeOfLayer} from '../vfs/layer-tree.ts'
import {extractTree} from './extract-tree.ts'
import {type LayerTar, type LayerTarOptions, type RootfsSource, writeLayerTars} from './layer-tar.ts'
import {mergeTrees} from './merge-trees.ts'

export interface ImageRootfs {
  /** The mount point of the merged tree. */
  readonly path: string
  /** What is in each layer, and where it lies in the tree; lowest first. */
  readonly layers: readonly PlacedLayer<TarEntry>[]
  /** Whether the layers are mounted over their tars, and nothing was unpacked. */
  readonly inPlace: boolean
  /** Where each layer is mounted by itself, lowest first; none where they were unpacked. */
  readonly layerPaths: readonly string[]
}

/**
 * Makes the root file system in `directory`, an empty directory of the caller's, who calls `unmountBelow(directory)` and
 * removes it whatever happens. Needs root. Throws `corrupt` for layers that are not what they should be.
 */
export async function mountImageRootfs(
  source: RootfsSource,
  directory: string,
  options: LayerTarOptions = {},
): Promise<ImageRootfs> {
  for (const name of ['layers', 'rootfs']) await mkdir(join(directory, name))
  const tars = await writeLayerTars(source, directory, options)
  const layers = tars.map(tar => placeLayer(tar.entries))
  const trees: DirectoryNode[] = []
  for (const {entries} of layers) trees.push(treeOfLayer(entries, payloadOffsetOf, trees))
  if (layers.some(({entries}) => entries.length >= MANY_FILES)) options.memoryCare?.plannedManyFiles()
  const parts = tars.map((tar, index) => ({tar, tree: trees[index]!, target: `layers/${index}`}))
  const inPlace = (await canMountErofs(directory)) && (await mountInPlace(directory, parts, options))
  if (!inPlace) await unpack(directory, parts, options)
  const layerPaths = inPlace ? parts.map(({target}) => join(directory, target)) : []
  return {path: join(directory, 'rootfs'), layers, inPlace, layerPaths}
}

interface LayerPart {
  readonly tar: LayerTar
  readonly tree: DirectoryNode
  /** Its mount point, relative to the directory. */
  readonly target: string
}

/**
 * False when it cannot be done here after all: the kernel stacks file systems two deep (FILESYSTEM_MAX_STACK_DEPTH), and
 * where `directory` is itself on an overlayfs, as in a container, EROFS in a file below another overlayfs is one more.
 */
async function mountInPlace(
  directory: string,
  parts: readonly LayerPart[],
  options: CallOptions,
): Promise<boolean> {
  try {
    for (const part of parts) await mountLayer(directory, part)
    await stack(
      directory,
      parts.map(({target}) => target),
      options,
    )
    return true
  } catch {
    options.signal?.throwIfAborted()
    await unmountBelow(directory)
    await rm(join(directory, 'writable'), {recursive: true, force: true})
    return false
  }
}

async function mountLayer(directory: string, {tar, tree, target}: LayerPart): Promise<void> {
  const image = `${tar.path}.erofs`
  await writeFile(image, encodeErofs(tree, {blockSize: 512, dataSize: tar.size}))
  await mkdir(join(directory, target))
  mountErofs({image, data: tar.path, target: join(directory, target), readAheadKb: EXACT_READ_AHEAD_KB})
}

/**
 * All layers into one directory, below an overlayfs all the same: tracing takes a file system as a whole, and must not
 * take the host's.
 */
async function unpack(directory: string, parts: readonly LayerPart[], options: CallOptions): Promise<void> {
  await using files = new AsyncDisposableStack()
  const tars = new Map<FileNode, FileHandle>()
  for (const {tar, tree} of parts) {
    const file = files.use(await open(tar.path, 'r'))
    for (const node of filesOf(tree)) tars.set(node, file)
  }
  const merged = 'layers/merged'
  await mkdir(join(directory, merged))
  await extractTree(
    mergeTrees(parts.map(({tree}) => tree)),
    join(directory, merged),
    node => tars.get(node)!,
    options,
  )
  await stack(directory, [merged], options)
  for (const {tar} of parts) await rm(tar.path)
}

function* filesOf(directory: DirectoryNode): Generator<FileNode> {
  for (const node of directory.children.values()) {
    if (node.type === 'dir') yield* filesOf(node)
    else if (node.type === 'reg') yield node
  }
}

/** overlayfs refuses some file systems below its writable directories, another overlayfs for one: then memory serves. */
async function stack(directory: string, layers: readonly string[], options: CallOptions): Promise<void> {
  // An image without layers still has a root; overlayfs wants a lower directory.
  const lower = layers.length > 0 ? layers : ['layers']
  const mount = {
    base: directory,
    lower,
    upper: 'writable/upper',
    work: 'writable/work',
    target: 'rootfs',
  }
  const writable = join(directory, 'writable')
  const prepare = async () => {
    for (const name of ['upper', 'work']) await mkdir(join(writable, name))
  }
  await mkdir(writable)
  await prepare()
  try {
    await mountOverlay(mount, options)
  } catch {
    options.signal?.throwIfAborted()
    await mountTmpfs(writable, options)
    await prepare()
    await mountOverlay(mount, options)
  }
}
