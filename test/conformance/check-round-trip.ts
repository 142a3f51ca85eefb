// Builds a layer of a tar and takes it apart again in every way there is.

import {expect} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {verifyLayer} from '../../src/lib/verify/verify-layer.ts'
import {memoryBlob} from '../support/memory-content.ts'
import {codec, decompressed, type LayerFormat, openBuilt, readContents} from './formats.ts'
import {contentsOf, treeOf} from './tree.ts'

/** Build -> unpack, verify, read file by file: all must give the tree of `tar`. */
export async function checkRoundTrip(
  format: LayerFormat,
  tar: Uint8Array,
  prioritizedPaths: readonly string[] = [],
): Promise<void> {
  const built = await format.build(tar, prioritizedPaths)
  const after = await decompressed(built)
  expect(treeOf(after)).toEqual(treeOf(tar))
  expect(built.diffId).toBe(digestOf(after))
  expect(built.descriptor).toMatchObject({digest: digestOf(built.bytes), size: built.bytes.length})
  if (format.keepsTar) expect(built.diffId).toBe(digestOf(tar))
  if (!format.isLazy) return
  const {diffId, externalToc} = built
  const verified = await verifyLayer(memoryBlob(built.bytes), built.descriptor, {codec, diffId, externalToc})
  expect(verified.findings).toEqual([])
  const layer = await openBuilt(built)
  expect(await readContents(layer)).toEqual(contentsOf(tar))
  expect([...layer.files.keys()].sort()).toEqual([...treeOf(tar).keys()].sort())
}
