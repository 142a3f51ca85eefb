// What a layer unpacks to when its names are read one after the other: trees as containerd leaves them.

import {describe, expect, it} from 'vitest'
import type {DirectoryNode, FileNode} from '../../src/lib/vfs/file-tree.ts'
import {placeLayer} from '../../src/lib/vfs/layer-places.ts'
import {type LayerEntry, treeOfLayer} from '../../src/lib/vfs/layer-tree.ts'
import {entryOf} from '../support/layer-entries.ts'

/** `path` for a directory, `path=uid` for a file, `path->target` for a link; what is one file shows one number. */
function listing(directory: DirectoryNode, prefix = ''): string[] {
  return [...directory.children]
    .sort(([left], [right]) => (left < right ? -1 : 1))
    .flatMap(([name, node]) => [prefix + name + describeNode(node), ...below(node, `${prefix}${name}/`)])
}

const below = (node: FileNode, prefix: string) => (node.type === 'dir' ? listing(node, prefix) : [])

function describeNode(node: FileNode): string {
  if (node.type === 'dir') return node.xattrs?.has('trusted.overlay.opaque') ? '/!' : '/'
  if (node.type === 'symlink') return `->${node.linkName}`
  return node.type === 'char' ? '-' : `=${node.uid}`
}

/** The uid of each entry is its number, from 1. */
function treeOf(names: readonly string[]): DirectoryNode {
  const entries: LayerEntry[] = names.map((text, index) => ({...entryOf(text), uid: index + 1}))
  return treeOfLayer(placeLayer(entries).entries, () => 0)
}

describe('a layer unpacks to', () => {
  const check = (name: string, layer: string, expected: string) =>
    it(name, () => expect(listing(treeOf(layer.split(' ')))).toEqual(expected.split(' ').filter(Boolean)))

  check('its files, with their directories', 'd/ d/x e/y', 'd/ d/x=2 e/ e/y=3')
  check('the last file of a name', 'x y x', 'x=3 y=2')
  check(
    'the last file of a place',
    'usr/lib/ lib→usr/lib lib/x usr/lib/x',
    'lib->usr/lib usr/ usr/lib/ usr/lib/x=4',
  )
  check('a link to what its name leads to', 'r/ a→r r/x y=a/x', 'a->r r/ r/x=3 y=3')
  check('what a name led to when its turn came', 'a/ l→a l/x l/ l/y', 'a/ a/x=3 l/ l/y=5')
  check('a file where a directory was', 'd/ d/x d', 'd=3')
  check('a file that lives on under another name', 'd/ d/x y=d/x d', 'd=4 y=2')
  check('a link to a file that is replaced later', 't l=t t', 'l=1 t=3')
  check('link and target, both replaced', 't l=t t l=t', 'l=3 t=3')
  check('a link to a symbolic link', 's→nowhere l=s', 'l->nowhere s->nowhere')
  check('a directory described twice, with all that is in it', 'd/ d/x d/ d/y', 'd/ d/x=2 d/y=4')
  check('a symbolic link where a directory was', 'd/ d/x e/ d→e d/y', 'd->e e/ e/y=5')
  check('absolute links, within the layer', 'a/b/ l→/a/b l/x', 'a/ a/b/ a/b/x=3 l->/a/b')
  check('links that climb, no further than the root', 'a/l→../../../b a/l/x', 'a/ a/l->../../../b b/ b/x=2')
  check('links through links', 'a→b b→c c/ a/x', 'a->b b->c c/ c/x=4')
  check('links to nothing, which is made', 'l→d/e l/x', 'd/ d/e/ d/e/x=2 l->d/e')
  check('hidden names', 'd/.wh.x .wh.y', 'd/ d/x- y-')
  check('what stands beside a whiteout of its name', 'x .wh.x .wh.y y', 'x=1 y=4')
  check('an opaque directory, described before or after', 'd/ d/.wh..wh..opq e/.wh..wh..opq e/', 'd/! e/!')
  check('nothing of the root', './ x ./', 'x=2')
  check('nothing that only describes the layer', '.no.prefetch.landmark x', 'x=2')
})

describe('a layer that containerd cannot unpack is refused', () => {
  const refuse = (name: string, layer: string) =>
    it(name, () => expect(() => treeOf(layer.split(' '))).toThrow(expect.objectContaining({code: 'corrupt'})))

  refuse('for a link before its target', 'l=t t')
  refuse('for a link without a target', 'l=t')
  refuse('for a link to itself', 'l l=l')
  refuse('for a link to what it takes the place of', 'd/ d/t d=d/t')
  refuse('for a link through what it takes the place of', 'a/t d/ d/s→../a d=d/s/t')
  refuse('for a link to a directory', 'd/ l=d')
  refuse('for a link to what is hidden', '.wh.t l=t')
  refuse('for a file below a file', 'd d/x')
  refuse('for a file below a link to a file', 'f l→f l/x')
  refuse('for a file below a loop of links', 'a→b b→a a/x')
})

it('a directory that is described again keeps the attributes that it is not given anew', () => {
  const xattrs = (name: string) => new Map([[name, Uint8Array.of(1)]])
  const entries = [
    {...entryOf('d/'), xattrs: xattrs('user.a')},
    {...entryOf('d/'), xattrs: xattrs('user.b'), mode: 0o700},
  ]
  const tree = treeOfLayer(placeLayer(entries).entries, () => 0)
  expect(tree.children.get('d')).toMatchObject({mode: 0o700})
  expect([...tree.children.get('d')!.xattrs!.keys()]).toEqual(['user.a', 'user.b'])
})

it('attributes that overlayfs would believe are not taken from a layer', () => {
  const xattrs = new Map(['trusted.overlay.redirect', 'user.a'].map(name => [name, Uint8Array.of(1)]))
  const tree = treeOfLayer(placeLayer([{...entryOf('d/'), xattrs}]).entries, () => 0)
  expect([...tree.children.get('d')!.xattrs!.keys()]).toEqual(['user.a'])
})

it('placing takes time in the size of the layer, whatever is replaced and linked in it', () => {
  const names = [
    ...Array.from({length: 20_000}, (_, index) => [
      'd/',
      `d/${index}`,
      'd',
      'l→e',
      `l/${index}`,
      'l/',
    ]).flat(),
    ...Array.from({length: 20_000}, (_, index) => `h${index + 1}=${index === 0 ? 'e/0' : `h${index}`}`),
  ]
  expect(placeLayer(names.map(entryOf)).entries).toHaveLength(names.length)
})
