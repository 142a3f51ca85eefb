import {describe, expect, it} from 'vitest'
import {mapLayers} from '../../src/lib/profile/layer-map.ts'
import {type NamedEntry, pathOf, placeLayer} from '../../src/lib/vfs/layer-places.ts'

/** `a/` is a directory, `a -> b` a symbolic link, `a => b` a hard link, anything else a file. */
function entry(text: string): NamedEntry {
  const [name = '', linkName = ''] = text.split(/ [-=]> /)
  if (text.includes(' -> ')) return {name, linkName, type: 'symlink'}
  if (text.includes(' => ')) return {name, linkName, type: 'hardlink'}
  return {name, linkName, type: name.endsWith('/') ? 'dir' : 'reg'}
}

describe('an accessed path comes from', () => {
  const check = (
    name: string,
    path: string,
    layers: readonly (readonly string[])[],
    expected: string | undefined,
  ) =>
    it(name, () => {
      const map = mapLayers(layers.map(names => placeLayer(names.map(entry))))
      const found = map.locate(path)
      expect(found && `${found.layerIndex}:${found.name}`).toBe(expected)
    })

  check('the layer that has it', 'a', [['a'], ['b']], '0:a')
  check('the topmost of those that have it', 'a', [['a'], ['a'], ['b']], '1:a')
  check('no layer', 'c', [['a'], ['b']], undefined)
  check('a layer that writes ./ before names', 'd/a', [['./', './d/', './d/a']], '0:d/a')

  check('nowhere when a whiteout hides it', 'a', [['a'], ['.wh.a']], undefined)
  check('above the whiteout', 'a', [['a'], ['.wh.a'], ['a']], '2:a')
  check('the layer of the whiteout itself', 'a', [['a'], ['.wh.a', 'a']], '1:a')
  check('nowhere when a whiteout hides a directory above', 'd/e/a', [['d/e/a'], ['.wh.d']], undefined)
  // containerd makes of these a directory like any other, and overlayfs merges it.
  check(
    'a directory that a whiteout before another one hides no more',
    'd/a',
    [['d/a'], ['.wh.d', 'd/']],
    '0:d/a',
  )
  check('nowhere when its directory is opaque', 'd/a', [['d/a'], ['d/', 'd/.wh..wh..opq']], undefined)
  check(
    'nowhere when any directory above is opaque',
    'd/e/f/a',
    [['d/e/f/a'], ['d/.wh..wh..opq', 'd/e/f/b']],
    undefined,
  )
  check('nowhere when the root is opaque', 'd/a', [['d/a'], ['.wh..wh..opq']], undefined)
  check('the opaque directory itself', 'd/a', [['d/a'], ['d/.wh..wh..opq', 'd/a']], '1:d/a')
  check('below an opaque directory beside it', 'd/a', [['d/a'], ['e/.wh..wh..opq']], '0:d/a')
  check('nowhere when a file took the place of a directory above', 'd/a', [['d/a'], ['d']], undefined)
  check('nowhere when a link took the place of a directory above', 'd/a', [['d/a'], ['d -> e']], undefined)
  check(
    'nowhere when a directory took its place',
    'a',
    [
      ['a', 'b'],
      ['a/', 'a/x'],
    ],
    '0:a',
  )
  check('nowhere when a link took its place', 'a', [['a'], ['a -> b']], undefined)

  check('a hard link by its own name', 'b', [['a', 'b => a']], '0:b')
  check('the last entry of a name', 'a', [['a', 'a -> x']], undefined)
  check('a link that became a file', 'a', [['a -> x', 'a']], '0:a')

  check(
    'a name through a link of its layer',
    'usr/lib/x',
    [['usr/lib/', 'lib -> usr/lib', 'lib/x']],
    '0:lib/x',
  )
  check('a directory that hides a link of a lower layer', 'lib/x', [['lib -> usr/lib'], ['lib/x']], '1:lib/x')
  check('no place of a lower layer', 'usr/lib/x', [['lib -> usr/lib'], ['lib/x']], undefined)
  check('a name through an absolute link', 'usr/lib/x', [['a/lib -> /usr/lib', 'a/lib/x']], '0:a/lib/x')
  check('a name through links that climb', 'x', [['a/b -> ../../..', 'a/b/x']], '0:a/b/x')
  check('a name through a chain of links', 'd/x', [['a -> b', 'b -> c', 'c -> d', 'a/x']], '0:a/x')
  check(
    'a name whose link was replaced, under the path where it is',
    'a/x',
    [['a/', 'l -> a', 'l/x', 'l/', 'l/y']],
    '0:a/x',
  )
  check('the last name of a place', 'usr/lib/x', [['lib -> usr/lib', 'lib/x', 'usr/lib/x']], '0:usr/lib/x')
  check('no file whose directory was replaced', 'd/x', [['d/x', 'd']], undefined)
  check('a directory that replaces a link', 'lib/x', [['lib -> usr/lib'], ['lib/', 'lib/x']], '1:lib/x')
  check(
    'a directory where a link was removed',
    'lib/x',
    [['lib -> usr/lib'], ['.wh.lib'], ['lib/x']],
    '2:lib/x',
  )
  check('nothing that only describes the layer', '.prefetch.landmark', [['.prefetch.landmark']], undefined)
})

describe('entries that cannot be placed', () => {
  const refuse = (name: string, ...names: readonly string[]) =>
    it(name, () =>
      expect(() => placeLayer(names.map(entry))).toThrow(expect.objectContaining({code: 'corrupt'})),
    )

  refuse('are those below a loop of links', 'a -> b', 'b -> a', 'a/x')
  refuse('are whiteouts of nothing', 'd/.wh.')
  refuse('are whiteouts of a parent', '.wh...')
  refuse('are hard links to the root', 'a => /')
  refuse('are those with a NUL', 'a\0b')

  it('are so many below long chains of links that following them would take minutes', () => {
    const target = (index: number) => 'a/../'.repeat(800) + (index === 37 ? 'd' : `l${index + 1}`)
    const links = Array.from({length: 38}, (_, index) => entry(`l${index} -> ${target(index)}`))
    const files = Array.from({length: 2000}, (_, index) => entry(`l0/${index}`))
    expect(() => placeLayer([...links, ...files])).toThrow(expect.objectContaining({code: 'unsupported'}))
    const {entries} = placeLayer([...links, ...files.slice(100)].slice(0, 138))
    expect(pathOf(entries.at(-1)!.node)).toBe('d/199')
  })
})
