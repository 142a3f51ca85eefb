import {expect, it} from 'vitest'
import {indexToc} from '../../src/lib/estargz/index-toc.ts'
import {layOutDevice, treeOfToc} from '../../src/lib/layer/toc-tree.ts'

function treeOf(names: readonly string[]) {
  const entries = names.map(name => ({name, type: 'reg'}) as const)
  const files = indexToc({version: 1, entries}, 0, 'the TOC')
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

it('a link to a file that is replaced later keeps its contents', () => {
  const digest = `sha256:${'0'.repeat(64)}`
  const entries = [
    {name: 't', type: 'reg', size: 1, offset: 0, digest},
    {name: 'l', type: 'hardlink', linkName: 't'},
    {name: 't', type: 'reg', size: 2, offset: 10, digest},
  ] as const
  const files = indexToc({version: 1, entries}, 100, 'the TOC')
  const {children} = treeOfToc(files, layOutDevice(files))
  expect(children.get('l')).toMatchObject({size: 1, dataOffset: 0})
  expect(children.get('t')).toMatchObject({size: 2, dataOffset: 4096})
})

it("the root's entry says nothing: no runtime unpacks it", () => {
  const files = indexToc(
    {version: 1, entries: [{name: './', type: 'dir', mode: 0o700, uid: 9}]},
    0,
    'the TOC',
  )
  expect(treeOfToc(files, layOutDevice(files))).toMatchObject({mode: 0o755, uid: 0})
})
