// Reads one file of a layer that is on a web server, by HTTP ranges: only the TOC and the file are transferred. Nothing
// here is Node's, so the same code runs in a page: node read-over-http.ts URL TOC_DIGEST PATH

import {findFile, openHttpBlob, openLayer, parseDigest, readFile} from 'ctr-remote/reader'

const [url, tocDigest, path] = process.argv.slice(2)
if (!url || !tocDigest || !path) throw new Error('usage: read-over-http.ts URL TOC_DIGEST PATH')

const blob = await openHttpBlob(url)
const layer = await openLayer(blob, {where: url, tocDigest: parseDigest(tocDigest)})
const file = findFile(layer, path)
if (!file) throw new Error(`${url} has no ${path}`)
const decoder = new TextDecoder()
let text = ''
for await (const bytes of readFile(layer, file)) text += decoder.decode(bytes, {stream: true})
console.log(text + decoder.decode())
