// What a start of an image reads, told from its layers without running anything: for `optimize --static`. Needs no root, and
// serves images of all platforms.

import {type FileHandle, open} from 'node:fs/promises'
import {join} from 'node:path'
import {decodeByteText, encodeByteText} from '../io/byte-text.ts'
import {ImageFiles, type NameTree} from '../program/image-files.ts'
import {type PredictedStart, predictStart} from '../program/predict-start.ts'
import {cleanPath} from '../record/clean-path.ts'
import type {RecordEntry} from '../record/record-file.ts'
import {type LayerTar, type LayerTarOptions, writeLayerTars} from '../rootfs/layer-tar.ts'
import {mergeTrees} from '../rootfs/merge-trees.ts'
import {payloadOffsetOf} from '../tar/tar-entry.ts'
import type {DirectoryNode, TreeNode} from '../vfs/file-tree.ts'
import {type PlacedLayer, placeLayer} from '../vfs/layer-places.ts'
import {treeOfLayer} from '../vfs/layer-tree.ts'
import {type LocatedFile, mapLayers} from './layer-map.ts'
import type {ProfiledImage} from './profile-image.ts'
import {makeSandboxDirectory} from './sandbox-directory.ts'

export interface PredictOptions extends LayerTarOptions {
  /** Layers are decompressed into a directory of this one. */
  readonly temporaryDirectory: string
}

/** The files that a start reads, in the order of time as far as that can be told. Throws what reading the layers throws. */
export async function predictImage(
  image: ProfiledImage,
  start: PredictedStart,
  options: PredictOptions,
): Promise<readonly RecordEntry[]> {
  await using stack = new AsyncDisposableStack()
  // Each user has a root: nobody may write to that of another. What a killed run has left in it goes now.
  const root = join(options.temporaryDirectory, `ctr-remote-static-${process.geteuid?.() ?? 0}`)
  const directory = stack.use(await makeSandboxDirectory(root, []))
  const tars = await writeLayerTars(image, directory.path, options)
  const layers = tars.map(tar => placeLayer(tar.entries))
  const files: FileHandle[] = []
  for (const {path} of tars) files.push(stack.use(await open(path)))
  const find = findIn(layers, files)
  const predicted = await predictStart(find, start)
  return predicted.map(({name, layerIndex}) => ({
    path: name,
    manifestDigest: image.manifestDigest,
    layerIndex,
  }))
}

/** Finds files of the merged tree, with where they come from. */
function findIn(layers: readonly PlacedLayer<LayerTar['entries'][number]>[], tars: readonly FileHandle[]) {
  const trees: DirectoryNode[] = []
  for (const {entries} of layers) trees.push(treeOfLayer(entries, payloadOffsetOf, trees))
  const files = new ImageFiles([{layer: undefined, tree: namesOf(mergeTrees(trees))}])
  const map = mapLayers(layers)
  return async (path: string) => {
    const file = await files.find(path)
    const located: LocatedFile | undefined = file && map.locate(cleanPath(file.path) ?? '')
    if (!file || !located) return undefined
    const read = async (offset: number, length: number) => {
      const bytes = Buffer.alloc(length)
      const {bytesRead} = await tars[located.layerIndex]!.read(bytes, 0, length, file.offset + offset)
      return bytes.subarray(0, bytesRead)
    }
    return {...file, ...located, read}
  }
}

function namesOf(root: DirectoryNode): NameTree {
  return {
    root: async () => root,
    find: async (directory, name) => (directory as DirectoryNode).children.get(decodeByteText(name)),
    target: async link => encodeByteText((link as TreeNode).linkName),
  }
}
