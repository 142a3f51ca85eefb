// Builds an eStargz layer from a tar: node build-layer.ts ARCHIVE.tar[.gz] LAYER [PATH_THAT_COMES_FIRST...]

import {open} from 'node:fs/promises'
import {buildLayer, openFile} from 'ctr-remote'

const [archive, layer, ...prioritizedPaths] = process.argv.slice(2)
if (!archive || !layer) throw new Error('usage: build-layer.ts ARCHIVE LAYER [PATH...]')

await using source = await openFile(archive)
await using output = await open(layer, 'w')
const {descriptor, prioritized} = await buildLayer(source, {
  prioritizedPaths,
  write: async bytes => void (await output.writeFile(bytes)),
})
for (const path of prioritized.missing) console.error(`not in the archive: ${path}`)
console.log(JSON.stringify(descriptor, undefined, 2))
