// A read-only graph root of containers/storage, which Podman, Buildah and CRI-O read as an additional image store:
//
//   overlay-layers/layers.json, layers.lock      all layers
//   overlay-images/images.json, images.lock      all images
//                  <image>/manifest, …           their documents
//   overlay/<layer>/diff                         a link to where the layer's files are
//                   link, lower                  its short name, and those of the layers below
//   overlay/l/<short name>                       a link to `diff`
//
// Readers take locks for reading and look at nothing twice; each file is replaced as a whole, layers are there before an
// image says so and go after it has gone. So a reader sees the images before a change or after it, also when a crash comes
// in between: everything is derived from a table of ours again at the next start. What is as it should be is not written
// again: on a full disk a start must not take away what is there.

import {randomBytes} from 'node:crypto'
import {mkdir, readdir, readFile, readlink, rename, rm, symlink, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {replaceFile} from '../io/staged-file.ts'
import type {GraphRoot, ImageLayer, StoredImage} from '../layer-store/stored-image.ts'
import {layerIdsOf, shortNameOf} from './layer-ids.ts'
import {findOverlayOf} from './overlay-mounts.ts'
import {bigDataFile, bigDataOf, imageRecordOf, type LayerRecord, layerRecordsOf} from './records.ts'

/** In a directory that nobody else writes. */
export function createGraphRoot(root: string): GraphRoot {
  const [overlay, layers, images] = ['overlay', 'overlay-layers', 'overlay-images'].map(name =>
    join(root, name),
  ) as [string, string, string]

  async function show(
    shown: readonly StoredImage[],
    directoryOf: (layer: ImageLayer) => string,
  ): Promise<void> {
    for (const path of [join(overlay, 'l'), layers, images]) await mkdir(path, {recursive: true})
    for (const path of [
      join(layers, 'layers.lock'),
      join(images, 'images.lock'),
      join(root, 'storage.lock'),
    ]) {
      await writeFile(path, '', {flag: 'a', mode: 0o644})
    }
    for (const image of shown) {
      await placeLayers(image, directoryOf)
      await writeDocuments(image)
    }
    const records = new Map(shown.flatMap(layerRecordsOf).map(record => [record.id, record]))
    const before = await readLayers(join(layers, 'layers.json'))
    const both = new Map([...before.map(record => [record.id, record] as const), ...records])
    await showRecords(layers, 'layers', [...both.values()])
    await showRecords(images, 'images', shown.map(imageRecordOf))
    await showRecords(layers, 'layers', [...records.values()])
    await removeOthers(images, new Set(shown.map(({id}) => id)))
    await removeOthers(overlay, new Set(records.keys()))
    await removeOthers(join(overlay, 'l'), new Set([...records.keys()].map(id => shortNameOf(root, id))))
  }

  async function placeLayers(image: StoredImage, directoryOf: (layer: ImageLayer) => string): Promise<void> {
    const ids = layerIdsOf(image.layers.map(({diffId}) => diffId))
    const shortNames = ids.map(id => shortNameOf(root, id))
    for (const [index, layer] of image.layers.entries()) {
      const directory = join(overlay, ids[index]!)
      await mkdir(directory, {recursive: true, mode: 0o700})
      await link(directoryOf(layer), join(directory, 'diff'))
      await put(join(directory, 'link'), shortNames[index]!)
      const below = shortNames.slice(0, index).reverse()
      if (below.length > 0) await put(join(directory, 'lower'), below.map(name => `l/${name}`).join(':'))
      await link(`../${ids[index]}/diff`, join(overlay, 'l', shortNames[index]!))
    }
  }

  async function writeDocuments(image: StoredImage): Promise<void> {
    const directory = join(images, image.id)
    await mkdir(directory, {recursive: true, mode: 0o700})
    for (const [name, text] of bigDataOf(image)) await put(join(directory, bigDataFile(name)), text)
  }

  return {
    show,
    findUser: image => {
      const ids = layerIdsOf(image.layers.map(({diffId}) => diffId))
      const top = ids.at(-1) ?? ''
      // Podman 4 mounts by short names, Podman 5 by the directories themselves.
      return findOverlayOf([shortNameOf(root, top), join(root, 'overlay', top, 'diff')])
    },
  }
}

async function readLayers(path: string): Promise<readonly LayerRecord[]> {
  try {
    return JSON.parse(await readFile(path, 'utf8'))
  } catch {
    // There is none yet, or none that any reader could use.
    return []
  }
}

/** `<directory>/<name>.json`, and whoever has read it before reads it again: its lock's contents are others then. */
async function showRecords(directory: string, name: string, records: readonly unknown[]): Promise<void> {
  if (!(await put(join(directory, `${name}.json`), JSON.stringify(records), 0o600))) return
  await writeFile(join(directory, `${name}.lock`), randomBytes(32).toString('hex'), {flag: 'r+'})
}

/** Gives a file these contents, as a whole; false when it had them. */
async function put(path: string, text: string, mode = 0o644): Promise<boolean> {
  if ((await readFile(path, 'utf8').catch(() => undefined)) === text) return false
  await replaceFile(path, text, {mode})
  return true
}

async function link(target: string, path: string): Promise<void> {
  if ((await readlink(path).catch(() => undefined)) === target) return
  const staged = `${path}.new`
  await rm(staged, {force: true})
  await symlink(target, staged)
  await rename(staged, path)
}

/** Removes the directories and links that are not in `kept`. */
async function removeOthers(directory: string, kept: ReadonlySet<string>): Promise<void> {
  for (const entry of await readdir(directory, {withFileTypes: true})) {
    const isOurs = entry.isSymbolicLink() || (entry.isDirectory() && entry.name !== 'l')
    if (isOurs && !kept.has(entry.name)) await rm(join(directory, entry.name), {recursive: true, force: true})
  }
}
