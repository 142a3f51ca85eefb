import {expect, it} from 'vitest'
import {indexToc} from '../../src/lib/estargz/index-toc.ts'
import {layOutDevice, treeOfToc} from '../../src/lib/layer/toc-tree.ts'

function treeOf(names: readonly string[]) {
  const entries = names.map(name => ({name, type: 'reg'}) as const)
  const files = [...indexToc({version: 1, entries}, 0, 'the TOC').values()]
  return treeOfToc(files, layOutDevice(files))
}

it('a layer need not describe the directories in which its files are', () => {
  const tree = treeOf(['a/b/c', 'a/d'])
  expect(tree.children.get('a')).toMatchObject({type: 'dir', mode: 0o755})
})

it('a layer with a thousand directories above each file is refused before they fill the memory', () => {
  const names = Array.from({length: 600}, (_, index) => `${index}/${'d/'.repeat(1000)}f`)
  expect(() => treeOf(names)).toThrow(expect.objectContaining({code: 'unsupported'}))
})
