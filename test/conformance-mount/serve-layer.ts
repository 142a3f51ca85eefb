// A process that serves one layer through either backend until it is killed: `node serve-layer.ts KIND DIRECTORY`. Says
// "ready" when what an earlier one left has been taken over.

import {mkdirSync} from 'node:fs'
import {join} from 'node:path'
import {setTimeout as delay} from 'node:timers/promises'
import {openKeeper} from '../../src/lib/fuse/keeper.ts'
import {type BackendKind, createBackend, deviceName, mountableLayer} from './create-backend.ts'
import {createSampleDevice} from './sample-device.ts'
import {servedLayer} from './served-layer.ts'

const [kind, directory] = process.argv.slice(2) as [BackendKind, string]
const silent = () => {}
const keeper = await openKeeper({directory: join(directory, 'keeper')})
const backend = await createBackend(kind, {
  directory,
  keeper,
  log: {info: silent, debug: silent, warn: (fields, message) => console.error(message, fields)},
})
const layer = servedLayer()
const device = createSampleDevice(layer, directory, deviceName('served'))
const {read} = device
// Slow, so that some of it is always being read when the process is killed.
Object.assign(device, {
  read: async (...args: Parameters<typeof read>) => {
    await delay(10)
    return read(...args)
  },
})
makeMountpoint(join(directory, 'layer'))
await backend.mount(mountableLayer(directory, layer, device), join(directory, 'layer'), {})
backend.resume()
process.stdout.write('ready\n')
process.stdin.resume().on('end', async () => {
  await backend.unmount(join(directory, 'layer'))
  await backend.close('unmount')
  process.exit(0)
})

/** Asks nothing of what may be mounted there: only this process could answer. */
function makeMountpoint(path: string): void {
  try {
    mkdirSync(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
}
