// One layer as a directory that overlayfs takes as a lower one, with its marks for what it hides.

import {mkdir, mkdtemp, open, readFile, rename, rm, writeFile} from 'node:fs/promises'
import {dirname, join} from 'node:path'
import {payloadOffsetOf} from '../tar/tar-entry.ts'
import {placeLayer} from '../vfs/layer-places.ts'
import {treeOfLayer} from '../vfs/layer-tree.ts'
import {extractTree} from './extract-tree.ts'
import {type LayerTarOptions, type LayerTarSource, writeLayerTar} from './layer-tar.ts'

/** What is in the directory of an unpacked layer: its files, and a file with the size of its tar. */
const [FILES, SIZE] = ['files', 'size']

/** Where the files of the layer unpacked at `directory` are. */
export function filesOfUnpacked(directory: string): string {
  return join(directory, FILES)
}

/**
 * Unpacks into the new directory `directory`, which is whole when it is there; one that is there stays. Resolves to the
 * size of the tar. Needs root.
 */
export async function unpackLayer(
  source: LayerTarSource,
  directory: string,
  options: LayerTarOptions = {},
): Promise<number> {
  const known = await readFile(join(directory, SIZE), 'utf8').catch(() => undefined)
  if (known !== undefined) return Number(known)
  await mkdir(dirname(directory), {recursive: true, mode: 0o700})
  const staged = await mkdtemp(`${directory}.new-`)
  try {
    const tar = await writeLayerTar(source, join(staged, 'tar'), options)
    const tree = treeOfLayer(placeLayer(tar.entries).entries, payloadOffsetOf)
    await mkdir(filesOfUnpacked(staged))
    {
      await using file = await open(tar.path, 'r')
      await extractTree(tree, filesOfUnpacked(staged), () => file, options)
    }
    await rm(tar.path)
    await writeFile(join(staged, SIZE), String(tar.size), {flush: true})
    await rename(staged, directory)
    return tar.size
  } finally {
    await rm(staged, {recursive: true, force: true})
  }
}
