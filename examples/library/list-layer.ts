// Lists a layer, or prints one of its files, without unpacking it: node list-layer.ts LAYER [PATH]

import {findFile, openFile, openLayer, readFile} from 'ctr-remote'

const [place, path] = process.argv.slice(2)
if (!place) throw new Error('usage: list-layer.ts LAYER [PATH]')

await using blob = await openFile(place)
// With `tocDigest`, from the layer's descriptor, everything that is read is verified.
const layer = await openLayer(blob, {where: place})
if (path === undefined) {
  console.log(`${layer.decompressor.name}, TOC ${layer.tocDigest}`)
  for (const {path, entry} of layer.files.values()) console.log(`${entry.type} ${entry.size ?? 0} ${path}`)
} else {
  const file = findFile(layer, path)
  if (!file) throw new Error(`${place} has no ${path}`)
  for await (const bytes of readFile(layer, file)) process.stdout.write(bytes)
}
