import {describe, expect, it} from 'vitest'
import {codeOf} from '../../src/lib/errors/coded-error.ts'
import {sortEntries} from '../../src/lib/estargz/sort-entries.ts'
import {entriesOf} from '../support/layers.ts'
import {archive, directory, gnuLong, member, pax} from '../support/tar.ts'

interface Expected {
  readonly prioritized: readonly string[]
  readonly rest: readonly string[]
  readonly missing?: readonly string[]
}

/** Sorts, and compares names as they are in the archive. */
function check(members: readonly Uint8Array[], wanted: readonly string[], expected: Expected): void {
  const {prioritized, rest, missing} = sortEntries(entriesOf(archive(...members)), wanted)
  expect({
    prioritized: prioritized.map(({name}) => name),
    rest: rest.map(({name}) => name),
    missing,
  }).toEqual({missing: [], ...expected})
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
  it('with links that form a loop, each once', () =>
    check([link('a', 'b'), link('b', 'a')], ['a'], {prioritized: ['b', 'a'], rest: []}))
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
    check([...all, file('z')], ['t6', 't5', 't4', 't3', 't2', 't1'], {
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

it('a file that is replaced after a link to it was made is refused, because the link would change', () => {
  const entries = entriesOf(archive(file('a', '1'), link('b', 'a'), file('a', '2')))
  expect(() => sortEntries(entries, [])).toThrow(expect.objectContaining({code: 'unsupported'}))
  try {
    sortEntries(entries, [])
  } catch (error) {
    expect(codeOf(error)).toBe('unsupported')
  }
})
