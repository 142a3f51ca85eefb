// Writes images into a store, as one of several processes: DIRECTORY FIRST COUNT.

import {openLocalStore} from '../../../src/lib/layout/local-store.ts'
import {writeSampleImage} from '../../support/sample-image.ts'

const [directory, first, count] = process.argv.slice(2)
const store = await openLocalStore(directory!)
for (let index = 0; index < Number(count); index++) {
  const name = `example.com/app:${first}-${index}`
  const lease = await store.lease()
  // One layer is everybody's, one is its own.
  const {root} = await writeSampleImage(store.content, {layers: [{shared: 'shared'}, {own: name}]})
  await store.images.put(name, root)
  await lease[Symbol.asyncDispose]()
}
