// Opens files, reads 4 KiB of each and closes it, twice: `node open-files.ts DIRECTORY`. Prints the medians of both passes
// in microseconds as JSON. A process of its own, as it waits for another that serves the files.

import {spawnSync} from 'node:child_process'
import {closeSync, openSync, readSync} from 'node:fs'

const MAX_FILES = 5000

// Not by readdir's `recursive`, which follows symlinks, also out of the image.
const {stdout} = spawnSync('find', [process.argv[2]!, '-type', 'f', '-print0'], {
  encoding: 'utf8',
  maxBuffer: 1 << 28,
})
const files = stdout.split('\0').filter(Boolean).slice(0, MAX_FILES)
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
