// Checks a layer against its descriptor, as JSON in a file: node verify-layer.ts LAYER DESCRIPTOR.json

import {readFile} from 'node:fs/promises'
import {type Descriptor, openFile, verifyLayer} from 'ctr-remote'

const [place, descriptorFile] = process.argv.slice(2)
if (!place || !descriptorFile) throw new Error('usage: verify-layer.ts LAYER DESCRIPTOR.json')

await using blob = await openFile(place)
const descriptor: Descriptor = JSON.parse(await readFile(descriptorFile, 'utf8'))
const {format, findings, counts} = await verifyLayer(blob, descriptor)
for (const {message} of findings) console.log(message)
console.log(`${format ?? 'no lazy format'}: ${counts.files} files, ${findings.length} findings`)
process.exitCode = findings.length > 0 ? 1 : 0
