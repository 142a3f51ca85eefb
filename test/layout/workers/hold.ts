// Gets to a point in the middle of work, says so on stdout, and stays there until it is killed:
// DIRECTORY lease|write|lock. With `lease` it prints the digest of what it wrote and leased.

import {withLock} from '../../../src/lib/layout/directory-lock.ts'
import {layoutPaths} from '../../../src/lib/layout/layout-paths.ts'
import {openLocalStore} from '../../../src/lib/layout/local-store.ts'
import {writeSampleImage} from '../../support/sample-image.ts'

const [directory, point] = process.argv.slice(2)
const store = await openLocalStore(directory!)
// A timer keeps the process alive; nothing waits for it.
setInterval(() => {}, 60_000)
const held = new Promise<never>(() => {})

if (point === 'lease') {
  await store.lease()
  const {root} = await writeSampleImage(store.content)
  console.log(root.digest)
} else if (point === 'write') {
  const writer = await store.content.write({mediaType: ''})
  await writer.write(Buffer.alloc(100_000, 1))
  console.log('writing')
} else {
  await withLock(layoutPaths(directory!).lock, {}, async () => {
    console.log('locked')
    await held
  })
}
