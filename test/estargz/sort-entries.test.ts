import {describe, expect, it} from 'vitest'
import {misreadNames} from '../../src/lib/estargz/misread-names.ts'
import {sortEntries} from '../../src/lib/estargz/sort-entries.ts'
import {cleanPath} from '../../src/lib/tar/path.ts'
import type {TarEntry} from '../../src/lib/tar/tar-entry.ts'
import {entryOf} from '../support/layer-entries.ts'
import {entriesOf} from '../support/layers.ts'
import {archive, directory, gnuLong, member, pax} from '../support/tar.ts'

interface Expected {
  readonly prioritized: readonly string[]
  readonly rest: readonly string[]
  readonly missing?: readonly string[]
  readonly unmoved?: readonly string[]
}

/** Sorts, and compares names as they are in the archive. */
function check(members: readonly Uint8Array[], wanted: readonly string[], expected: Expected): void {
  const {prioritized, rest, missing, unmoved} = sortEntries(entriesOf(archive(...members)), wanted)
  expect({
    prioritized: prioritized.map(({name}) => name),
    rest: rest.map(({name}) => name),
    missing,
    unmoved,
  }).toEqual({missing: [], unmoved: [], ...expected})
}

const file = (name: string, body = name) => member({name}, body)
const link = (name: string, linkName: string) => member({name, typeflag: '1', linkName})
const symlink = (name: string, linkName: string) => member({name, typeflag: '2', linkName})

describe('entries are sorted', () => {
  it('not at all without a list', () =>
    check([file('b'), file('a')], [], {prioritized: [], rest: ['b', 'a']}))
  it('to the order in which they are in', () =>
    check([file('a'), file('b'), file('c')], ['a', 'b', 'c'], {prioritized: ['a', 'b', 'c'], rest: []}))
  it('by the list', () =>
    check([file('a'), file('b'), file('c')], ['c', 'a'], {prioritized: ['c', 'a'], rest: ['b']}))
  it('with directories before what is in them, each once', () =>
    check([directory('d/'), directory('d/e/'), file('d/e/a'), file('d/b'), file('x')], ['d/e/a', 'd/b'], {
      prioritized: ['d/', 'd/e/', 'd/e/a', 'd/b'],
      rest: ['x'],
    }))
  it('with a hard link after its target and the directories of both', () =>
    check([directory('d/'), file('d/target'), directory('l/'), link('l/link', 'd/target')], ['l/link'], {
      prioritized: ['d/', 'd/target', 'l/', 'l/link'],
      rest: [],
    }))
  it('with links to links after all of them', () =>
    check([file('a'), link('b', 'a'), link('c', 'b'), file('d')], ['c'], {
      prioritized: ['a', 'b', 'c'],
      rest: ['d'],
    }))
  it('not at all when no runtime can unpack them', () =>
    check([link('a', 'b'), link('b', 'a'), file('c'), file('c')], ['a', 'c'], {
      prioritized: [],
      rest: ['a', 'b', 'c', 'c'],
      unmoved: ['a', 'c'],
    }))
  it('without the targets of symlinks', () =>
    check([file('a'), symlink('s', 'a')], ['s'], {prioritized: ['s'], rest: ['a']}))
  it('by clean paths, however list and archive spell them', () => {
    check([directory('./'), directory('./d/'), file('./d/a')], ['/d/./a'], {
      prioritized: ['./', './d/', './d/a'],
      rest: [],
    })
    check([file('/abs'), file('rel')], ['rel', 'abs'], {prioritized: ['rel', '/abs'], rest: []})
  })
  it('without those that are not there, which are reported', () =>
    check([file('a')], ['gone', 'a', '../a'], {prioritized: ['a'], rest: [], missing: ['gone', '../a']}))
  it("where the directory of a file is another layer's", () =>
    check([file('x'), file('d/a')], ['d/a'], {prioritized: ['d/a'], rest: ['x']}))
  it('with a path given twice moved once', () =>
    check([file('a'), file('b')], ['b', 'b', './b'], {prioritized: ['b'], rest: ['a']}))
  it('with the last of several entries of one path, in its place', () =>
    check([file('a', '1'), file('b'), file('./a', '2')], [], {prioritized: [], rest: ['b', './a']}))
  it('without landmarks and TOC of an earlier conversion', () =>
    check(
      [
        file('.prefetch.landmark'),
        file('./.no.prefetch.landmark'),
        file('stargz.index.json'),
        file('d/.prefetch.landmark'),
      ],
      ['.prefetch.landmark'],
      {prioritized: [], rest: ['d/.prefetch.landmark'], missing: ['.prefetch.landmark']},
    ))
  it('with long names of both kinds', () => {
    const long = `d/${'n'.repeat(200)}`
    check(
      [file('x'), gnuLong('L', long), file('cut'), pax({path: `${long}2`}), file('cut')],
      [`${long}2`, long],
      {
        prioritized: [`${long}2`, long],
        rest: ['x'],
      },
    )
  })
  it('whatever their type', () => {
    const all = ['1', '2', '3', '4', '5', '6'].map(typeflag =>
      member({name: `t${typeflag}`, typeflag, linkName: 'z'}),
    )
    check([file('z'), ...all], ['t6', 't5', 't4', 't3', 't2', 't1'], {
      prioritized: ['t6', 't5', 't4', 't3', 't2', 'z', 't1'],
      rest: [],
    })
  })
  it('when a chain of links is longer than a stack', () => {
    const members = Array.from({length: 30_000}, (_, index) => link(`l${index + 1}`, `l${index}`))
    const {prioritized} = sortEntries(entriesOf(archive(file('l0'), ...members)), ['l30000'])
    expect(prioritized).toHaveLength(30_001)
    expect(prioritized[0]!.path).toBe('l0')
  })
})

/** `a/` a directory, `a→b` a symbolic link, `a=b` a hard link, else a file. */
function memberOf(text: string): Uint8Array {
  const {name, type, linkName} = entryOf(text)
  return type === 'symlink'
    ? symlink(name, linkName)
    : type === 'hardlink'
      ? link(name, linkName)
      : type === 'dir'
        ? directory(name)
        : file(name)
}

describe('names that are not places', () => {
  /** `wanted`, then what comes first and the rest, as in `entryOf` without what links lead to. */
  const order = (name: string, layer: string, wanted: string, first: string, rest: string, unmoved = '') =>
    it(name, () => {
      const words = (text: string) => text.split(' ').filter(Boolean)
      check(words(layer).map(memberOf), words(wanted), {
        prioritized: words(first),
        rest: words(rest),
        unmoved: words(unmoved),
      })
    })

  const merged = 'usr/ usr/lib/ lib→usr/lib lib/x usr/lib/x'
  order('the last of several names of a place is kept', merged, '', '', 'usr/ usr/lib/ lib usr/lib/x')
  order('a path is looked for where it leads', merged, 'lib/x', 'usr/ usr/lib/ usr/lib/x', 'lib')
  order('a hard link brings the links on the way to its target', 'r/ a→r r/x z y=a/x', 'y', 'r/ r/x a y', 'z')
  order('a file brings the links on its way', 'r/ a→r z a/x', 'r/x', 'r/ a a/x', 'z')
  order(
    'a link that others went through is kept when it is replaced',
    'a/ l→a l/x l/ l/y',
    '',
    '',
    'a/ l l/x l/ l/y',
  )
  order('and what replaces it stays behind them', 'a/ l→a l/x l/ l/y', 'l/y a/x', 'a/ l l/x', 'l/ l/y', 'l/y')
  order('a replaced file that lives on under another name is kept', 't l=t t', 'l', 't l', 't')
  order('and what replaces it stays behind that', 't l=t z t', 'z t', 'z', 't l t', 't')
  order('link and target, both replaced, are dropped', 't l=t z t l=t', 'l', 't l', 'z')
  order('what was in a directory that a file replaced is dropped', 'd/ d/x z d', 'd', 'd', 'z')
  order('but for what lives on', 'd/ d/x y=d/x d', 'y', 'd/ d/x y', 'd')
  order('a file comes after the whiteout of its own name', 'z .wh.x x', 'x', '.wh.x x', 'z')
  order('and what takes that place again, too', 'z .wh.d d d/ d/x', 'd/x', '.wh.d d/ d/x', 'z')
  order('a file comes after the whiteout of its directory', 'z .wh.d d/ d/x', 'd/x', '.wh.d d/ d/x', 'z')
  order('a whiteout can be asked for', 'z d/ d/.wh.x', 'd/.wh.x', 'd/ d/.wh.x', 'z')
  order(
    'names that a lower layer may make one keep their order',
    'z lib/x y usr/lib/x',
    'usr/lib/x',
    'lib/x usr/lib/x',
    'z y',
  )
  order(
    'when either may lie elsewhere',
    'usr/ usr/lib/ usr/lib/x z lib/x',
    'lib/x',
    'usr/ usr/lib/ usr/lib/x lib/x',
    'z',
  )
  order(
    'but not two below one that is not described',
    'u/a/ u/a/x u/b/ u/b/x',
    'u/b/x',
    'u/b/ u/b/x',
    'u/a/ u/a/x',
  )
  order('but not two of described directories', 'a/ b/ a/x b/x c/y', 'b/x', 'b/ b/x', 'a/ a/x c/y')
  order('a directory that is described later stays there', 'z d/x d/', 'd/x', 'd/x', 'z d/')
  order(
    'a directory described through what is in it',
    'd/ d/s→.. d/s/d/ z d/x',
    'd/x',
    'd/ d/x',
    'd/s d/s/d/ z',
  )

  order('the last description of a directory is enough', 'd/ d/x d/', '', '', 'd/x d/')
  order(
    'but the first is kept before a name that a link leads into it',
    'd/ l→. l/d/x d/',
    '',
    '',
    'd/ l l/d/x d/',
  )
  order('and comes first with what is wanted of it', 'z d/ l→. l/d/x d/', 'd/x', 'd/ l l/d/x', 'z d/')
  order(
    'what replaces it stays, however often it is described',
    'f y=f f/ z f/',
    'f z',
    'z',
    'f y f/ f/',
    'f',
  )
  order(
    'a whiteout comes before a directory that is described twice',
    'z .wh.d d/ d/ d/x',
    'd/x',
    '.wh.d d/ d/x',
    'z d/',
  )
  order(
    'a directory that replaced something is described before what is in it',
    '.wh.d d/ d/x d/',
    '',
    '',
    '.wh.d d/ d/x d/',
  )
  order('or that would be where the link led', 'a/ l→a l/x l/ l/y l/', '', '', 'a/ l l/x l/ l/y l/')
  order('what took a directory away is kept when another comes there', 'd/f y=d/f d d/', 'y', 'd/f y', 'd d/')
  order('a mark comes after its directory', 'z d/ d/.wh..wh..opq', 'd/.wh..wh..opq', 'd/ d/.wh..wh..opq', 'z')

  it('files that are gone when all is unpacked are missing', () =>
    check([directory('d/'), file('d/x'), file('d')], ['d/x'], {
      prioritized: [],
      rest: ['d'],
      missing: ['d/x'],
    }))
  it('a directory that loses attributes by its last description keeps the others', () =>
    check([pax({'SCHILY.xattr.user.a': '1'}), directory('d/'), directory('d/'), file('d/x')], ['d/x'], {
      prioritized: ['d/', 'd/x'],
      rest: ['d/'],
    }))
  const misread = (name: string, layer: string, ...expected: readonly string[]) =>
    it(`are said when readers by name ${name}`, () => {
      const entries = entriesOf(archive(...layer.split(' ').map(memberOf)))
      expect(misreadNames(entries)).toEqual(expected)
    })
  misread('would not find a file', 'usr/lib/ lib→usr/lib lib/x', 'lib/x')
  misread('would find one that is gone', 'd/ d/x d', 'd/x')
  misread('would find another one', 't l=t t', 'l')
  misread('would find one behind a link', 'a/ l→a l/x l/ l/y', 'l/x')
  misread('would see the same: not', 't l=t x t l=t d/ d/')

  it('many of them take time in the size of the layer', () => {
    const size = 20_000
    const names = [
      'e/',
      ...Array.from({length: size}, (_, index) => ['d/', 'l→e', `l/${index}`, `u${index}/x`, 'l/']).flat(),
      't0',
      ...Array.from({length: size}, (_, index) => `t${index + 1}=t${index}`),
    ]
    const entries = names.map((text, index) => ({...tarEntryOf(text), headerOffset: index * 512}))
    const {prioritized} = sortEntries(entries, [...names, `t${size}`])
    expect(prioritized.length).toBeGreaterThan(2 * size)
  })
})

function tarEntryOf(text: string): TarEntry {
  const entry = entryOf(text)
  const path = cleanPath(entry.name)!
  return {
    ...entry,
    path,
    userName: '',
    groupName: '',
    headerOffset: 0,
    headerSize: 512,
    foldedHeader: undefined,
  }
}
