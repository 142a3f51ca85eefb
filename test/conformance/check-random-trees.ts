// A property: whatever is in a tree, a format keeps it.

import {mapOrdered} from '../../src/lib/io/ordered-map.ts'
import {checkRoundTrip} from './check-round-trip.ts'
import type {LayerFormat} from './formats.ts'
import {randomLayer} from './random-tree.ts'

/** Layers under way at once, so that compressing one hides hashing another. */
const AT_ONCE = 8

/** Checks the trees of the seeds from 0 to before `count`; throws with the seed of one that did not survive. */
export async function checkRandomTrees(format: LayerFormat, count: number): Promise<void> {
  const check = async (seed: number) => {
    const {tar, prioritizedPaths} = randomLayer(seed)
    await checkRoundTrip(format, tar, prioritizedPaths).catch(cause => {
      throw new Error(`Seed ${seed}: ${cause instanceof Error ? cause.message : cause}`, {cause})
    })
  }
  const seeds = Array.from({length: count}, (_, seed) => seed)
  for await (const _ of mapOrdered(seeds, check, {weightOf: () => 1, maxWeight: AT_ONCE})) {
    // Nothing to take: a tree that is lost throws.
  }
}
