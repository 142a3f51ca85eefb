// A daemon that serves one lazy file, for tests that kill it: node daemon-process.ts DIRECTORY FETCHES
// DIRECTORY/content is the file; every other 64 KiB of it is there already, the rest is fetched with some delay. After
// FETCHES fetches it kills itself in the middle of one, with others under way; 0: never. It says `ready` when it serves.

import {readFileSync} from 'node:fs'
import {join} from 'node:path'
import {openKeeper} from '../../src/lib/fuse/keeper.ts'
import {openDataFileSystem} from '../../src/lib/fuse-data/data-files.ts'
import {createChunkBitmap} from '../../src/lib/io/chunk-bitmap.ts'

const [directory = '', fetches = '0'] = process.argv.slice(2)
const BLOCK = 4096
const GROUP = 65_536 / BLOCK

const content = readFileSync(join(directory, 'content'))
const bitmap = createChunkBitmap(content.length / BLOCK)
for (let block = 0; block < bitmap.size; block++) if (Math.floor(block / GROUP) % 2 === 0) bitmap.add(block)

let left = Number(fetches)
const log = {info() {}, warn: (fields: object, message: string) => console.log(message, fields), debug() {}}
const files = await openDataFileSystem({
  mountpoint: join(directory, 'mnt'),
  workers: 2,
  keeper: await openKeeper({directory: join(directory, 'keeper')}),
  log,
})
await files.add({
  name: 'da-e0',
  size: content.length,
  path: join(directory, 'content'),
  present: bitmap.buffer,
  // Nothing is kept: every read of these blocks is a fetch.
  read: async (offset, length) => {
    await new Promise(resolve => setTimeout(resolve, 1))
    if (--left === 0) process.kill(process.pid, 'SIGKILL')
    return content.subarray(offset, offset + length)
  },
})
files.resume()
process.on('SIGTERM', () => void files.close('leave').then(() => process.exit(0)))
process.on('SIGINT', () => void files.close('unmount').then(() => process.exit(0)))
console.log('ready')
