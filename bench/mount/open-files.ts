// Opens files, reads 4 KiB of each and closes it, twice: `node open-files.ts DIRECTORY`. Prints the medians of both passes
// in microseconds as JSON. A process of its own, as it waits for another that serves the files.

import {closeSync, openSync, readdirSync, readSync} from 'node:fs'
import {join} from 'node:path'

const MAX_FILES = 5000

const root = process.argv[2]!
const files = readdirSync(root, {recursive: true, withFileTypes: true})
  .filter(entry => entry.isFile())
  .map(entry => join(entry.parentPath, entry.name))
  .slice(0, MAX_FILES)
const buffer = Buffer.alloc(4096)

function pass(): number {
  const times = files.map(file => {
    const start = process.hrtime.bigint()
    const fd = openSync(file, 'r')
    readSync(fd, buffer, 0, buffer.length, 0)
    closeSync(fd)
    return Number(process.hrtime.bigint() - start) / 1000
  })
  return times.sort((left, right) => left - right)[times.length >> 1]!
}

process.stdout.write(JSON.stringify({first: pass(), again: pass()}))
