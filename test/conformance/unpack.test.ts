// Every format, unpacked on disk by GNU tar: the tree of the source, and no other.

import {expect, it} from 'vitest'
import {describeWith} from '../support/requires.ts'
import {ADDED_FILES, describeTree, unpackTar} from '../support/unpacked-tree.ts'
import {EVERYTHING} from './everything.ts'
import {decompressed, FORMATS} from './formats.ts'

describeWith(['root', 'tar', 'getfattr'], 'GNU tar unpacks', () => {
  it.each(FORMATS)('$name to the tree of the source', async format => {
    const source = describeTree(await unpackTar(EVERYTHING))
    expect(source.split('\n').length).toBeGreaterThan(20)
    for (const prioritized of [[], ['link', 'd', 'empty']]) {
      const layer = await decompressed(await format.build(EVERYTHING, prioritized))
      expect(describeTree(await unpackTar(layer, ADDED_FILES))).toBe(source)
    }
  })
})
