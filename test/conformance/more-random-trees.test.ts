import {expect, it} from 'vitest'
import {checkRandomTrees} from './check-random-trees.ts'

// Half of a thousand trees; the other half is in another file, so that two cores share the work.
it('random trees survive every format unchanged', {timeout: 300_000}, async () => {
  expect(await checkRandomTrees(500, 500)).toBeUndefined()
})
