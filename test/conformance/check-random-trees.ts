// A property: whatever is in a tree, every format keeps it.

import {expect} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {mapOrdered} from '../../src/lib/io/ordered-map.ts'
import {verifyLayer} from '../../src/lib/verify/verify-layer.ts'
import {memoryBlob} from '../support/memory-content.ts'
import {codec, decompressed, FORMATS, type LayerFormat} from './formats.ts'
import {randomLayer} from './random-tree.ts'
import {treeOf} from './tree.ts'

/** Trees under way at once, so that compressing one hides hashing another. */
const AT_ONCE = 4

/** Checks the trees of these seeds in all formats; throws with the seed and format of one that did not survive. */
export async function checkRandomTrees(firstSeed: number, count: number): Promise<void> {
  const seeds = Array.from({length: count}, (_, index) => firstSeed + index)
  for await (const _ of mapOrdered(seeds, checkSeed, {weightOf: () => 1, maxWeight: AT_ONCE})) {
    // Nothing to take: a tree that is lost throws.
  }
}

async function checkSeed(seed: number): Promise<void> {
  const {tar, prioritizedPaths} = randomLayer(seed)
  const source = {tar, tree: treeOf(tar), prioritizedPaths}
  for (const format of FORMATS) {
    await checkFormat(format, source).catch(cause => {
      const problem = cause instanceof Error ? cause.message : cause
      throw new Error(`Seed ${seed} does not survive ${format.name}: ${problem}`, {cause})
    })
  }
}

interface Source {
  readonly tar: Uint8Array
  readonly tree: ReadonlyMap<string, string>
  readonly prioritizedPaths: readonly string[]
}

/** Build -> unpack, verify: verifying reads every chunk, and compares the TOC with what was unpacked. */
async function checkFormat(format: LayerFormat, {tar, tree, prioritizedPaths}: Source): Promise<void> {
  const built = await format.build(tar, prioritizedPaths)
  const after = await decompressed(built)
  expect(treeOf(after)).toEqual(tree)
  expect(built.diffId).toBe(digestOf(format.keepsTar ? tar : after))
  if (!format.isLazy) return
  const {diffId, externalToc} = built
  const verified = await verifyLayer(memoryBlob(built.bytes), built.descriptor, {codec, diffId, externalToc})
  expect(verified.findings).toEqual([])
}
