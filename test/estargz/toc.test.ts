import {describe, expect, it} from 'vitest'
import {codeOf, messageOf} from '../../src/lib/errors/coded-error.ts'
import {filesByPath, indexToc} from '../../src/lib/estargz/index-toc.ts'
import {encodeToc, MAX_TOC_ENTRIES, parseToc, type TocEntry} from '../../src/lib/estargz/toc.ts'
import {parseTocTime} from '../../src/lib/estargz/toc-of-plan.ts'

const text = (entries: readonly TocEntry[]) => new TextDecoder().decode(encodeToc(entries))
const parse = (value: unknown) => parseToc(new TextEncoder().encode(JSON.stringify(value)), 'the TOC')
const DIGEST = `sha256:${'0'.repeat(64)}`

function refuse(run: () => unknown, code: string, message: RegExp): void {
  let failure: unknown
  try {
    run()
  } catch (error) {
    failure = error
  }
  expect(messageOf(failure)).toMatch(message)
  expect(codeOf(failure)).toBe(code)
}

describe('a TOC', () => {
  it('is written byte for byte as Go writes it', () => {
    const entries: TocEntry[] = [
      {name: 'd/', type: 'dir', size: 0, mode: 0o755, uid: 0, modtime: ''},
      {
        chunkDigest: DIGEST,
        digest: DIGEST,
        xattrs: {'user.a': 'AQI='},
        offset: 40,
        name: 'd/<&>\u2028"ü',
        type: 'reg',
        size: 5,
        modtime: '2024-01-02T03:04:05Z',
        innerOffset: 0,
        chunkOffset: 0,
        chunkSize: 0,
      },
    ]
    expect(text(entries)).toBe(
      `{
	"version": 1,
	"entries": [
		{
			"name": "d/",
			"type": "dir",
			"mode": 493
		},
		{
			"name": "d/\\u003c\\u0026\\u003e\\u2028\\"ü",
			"type": "reg",
			"size": 5,
			"modtime": "2024-01-02T03:04:05Z",
			"offset": 40,
			"xattrs": {
				"user.a": "AQI="
			},
			"digest": "${DIGEST}",
			"chunkDigest": "${DIGEST}"
		}
	]
}`,
    )
  })

  it('of nothing has an empty list', () => expect(text([])).toBe('{\n\t"version": 1,\n\t"entries": []\n}'))

  it('is read as it was written', () => {
    const entries = Array.from({length: 5000}, (_, index) => ({
      name: `f${index}`,
      type: 'reg',
      size: index + 1,
    }))
    const toc = parseToc(encodeToc(entries as TocEntry[]), 'the TOC')
    expect(toc).toEqual({version: 1, entries})
  })

  it('keeps names that are not UTF-8 apart', () => {
    const entries: TocEntry[] = [
      {name: 'a\udcff', type: 'fifo'},
      {name: 'a\udcfe', type: 'fifo'},
    ]
    expect(parseToc(encodeToc(entries), 'the TOC').entries).toEqual(entries)
  })

  it('has one name for the same bytes, however they are escaped', () => {
    const names = ['\\udcc3\\udca9', 'é', '\\ud800', '\\ude00'].map(
      name => `{"name":"${name}","type":"fifo"}`,
    )
    const toc = parseToc(new TextEncoder().encode(`{"version":1,"entries":[${names}]}`), 'the TOC')
    expect(toc.entries.map(({name}) => name)).toEqual(['é', 'é', '\ufffd', '\ufffd'])
  })

  it('may have a list of null, as Go writes', () =>
    expect(parse({version: 1, entries: null}).entries).toEqual([]))

  it.each([
    ['no JSON', () => parseToc(new TextEncoder().encode('{'), 'the TOC'), 'corrupt', /not JSON/],
    ['another version', () => parse({version: 2, entries: []}), 'unsupported', /version is 2/],
    ['a list instead of an object', () => parse([]), 'unsupported', /version/],
    ['no list', () => parse({version: 1, entries: {}}), 'corrupt', /no list/],
    ['a null entry', () => parse({version: 1, entries: [null]}), 'corrupt', /entry 0/],
    [
      'an unknown type',
      () => parse({version: 1, entries: [{name: 'a', type: 'door'}]}),
      'corrupt',
      /valid type/,
    ],
    [
      'a size of text',
      () => parse({version: 1, entries: [{name: 'a', type: 'reg', size: '1'}]}),
      'corrupt',
      /"size"/,
    ],
    [
      'a negative size',
      () => parse({version: 1, entries: [{name: 'a', type: 'reg', size: -1}]}),
      'corrupt',
      /"size"/,
    ],
    [
      'half an offset',
      () => parse({version: 1, entries: [{name: 'a', type: 'reg', offset: 0.5}]}),
      'corrupt',
      /"off/,
    ],
    [
      'odd xattrs',
      () => parse({version: 1, entries: [{name: 'a', type: 'reg', xattrs: {a: 1}}]}),
      'corrupt',
      /"xatt/,
    ],
  ])('with %s is refused', (_, run, code, message) => refuse(run, code, message))
})

describe('a TOC that is parsed in pieces', () => {
  const bytes = (text: string) => new TextEncoder().encode(text)
  const entryOf = (index: number) =>
    `{"name":"f${index}","type":"fifo","modtime":"${'],[{}\\\\\\"'.repeat(99)}"}`
  const many = Array.from({length: 2000}, (_, index) => entryOf(index)).join(',')

  it('has every entry, in order, whatever their strings contain', () => {
    const toc = parseToc(
      bytes(`{"a":[[1],{}],"version":1,"entries":[${many}],"tarSplitDigest":"x"}`),
      'the TOC',
    )
    expect(toc.entries.map(({name}) => name)).toEqual(Array.from({length: 2000}, (_, index) => `f${index}`))
    expect(toc.tarSplitDigest).toBe('x')
  })

  it.each([
    ['ends in a list', `{"version":1,"entries":[${many}`],
    ['ends in a string', '{"version":1,"entries":[{"name":"'],
    ['has a comma after the last entry', `{"version":1,"entries":[${many},]}`],
    ['has a comma after nothing but white space', `{"version":1,"entries":[${' '.repeat(300_000)},{}]}`],
    ['closes the list as an object', `{"version":1,"entries":[${many}}`],
    ['goes on after its end', `{"version":1,"entries":[]}]`],
    ['has two lists', `{"version":1,"entries":[],"entries":[]}`],
    ['hides a list behind escapes', `{"version":1,"entries":[],"\\u0065ntries":[1]}`],
  ])('and %s is corrupt', (_, text) => refuse(() => parseToc(bytes(text), 'the TOC'), 'corrupt', /the TOC/))

  it.each([
    ['ten million lists', `{"version":1,"entries":[${'[],'.repeat(10_000_000)}[]]}`, 'corrupt', /entry 0/],
    ['lists in lists', `{"version":1,"entries":[${'['.repeat(10_000_000)}`, 'corrupt', /not JSON/],
    [
      'a large entry',
      `{"version":1,"entries":[{"a":[${'[],'.repeat(2_000_000)}[]]}]}`,
      'unsupported',
      /entry has more/,
    ],
    ['much besides', `{"version":1,"a":[${'[],'.repeat(100_000)}[]],"entries":[]}`, 'unsupported', /besides/],
    [
      'a deep version',
      `{"version":${'['.repeat(9000)}${']'.repeat(9000)},"entries":[]}`,
      'unsupported',
      /version/,
    ],
  ] as const)('takes little memory to refuse %s', (_, text, code, message) =>
    refuse(() => parseToc(bytes(text), 'the TOC'), code, message),
  )

  it('has a limit of entries, and one of extended attributes', () => {
    const entry = (xattrs: string) => `{"name":"a","type":"fifo"${xattrs}}`
    const list = (count: number, item: string) =>
      bytes(`{"version":1,"entries":[${`${item},`.repeat(count - 1)}${item}]}`)
    refuse(() => parseToc(list(MAX_TOC_ENTRIES + 1, entry('')), 'the TOC'), 'unsupported', /entries/)
    const names = Array.from({length: 1000}, (_, index) => `"${index}":""`).join(',')
    const heavy = entry(`,"xattrs":{${names}}`)
    refuse(() => parseToc(list(MAX_TOC_ENTRIES / 1000 + 1, heavy), 'the TOC'), 'unsupported', /attributes/)
  })
})

describe('the index of a TOC', () => {
  const index = (...entries: readonly TocEntry[]) =>
    filesByPath(indexToc({version: 1, entries}, 1000, 'the TOC'))
  const reg = (name: string, rest: Partial<TocEntry> = {}): TocEntry => ({
    name,
    type: 'reg',
    size: 10,
    ...rest,
  })

  it('gives each chunk the range of the blob up to the next stream', () => {
    const files = index(
      reg('a', {offset: 30, chunkSize: 4, chunkDigest: DIGEST}),
      {name: 'a', type: 'chunk', offset: 60, chunkOffset: 4, chunkDigest: DIGEST},
      reg('b', {offset: 60, innerOffset: 6, digest: DIGEST}),
      {name: 'empty', type: 'reg', digest: DIGEST},
    )
    expect(files.get('a')!.chunks).toEqual([
      {chunkOffset: 0, size: 4, offset: 30, innerOffset: 0, end: 60, digest: DIGEST},
      {chunkOffset: 4, size: 6, offset: 60, innerOffset: 0, end: 1000, digest: DIGEST},
    ])
    expect(files.get('b')!.chunks).toEqual([
      {chunkOffset: 0, size: 10, offset: 60, innerOffset: 6, end: 1000, digest: DIGEST},
    ])
    expect(files.get('empty')!.chunks).toEqual([])
  })

  it('keeps the last of several entries of one path', () => {
    const files = index({name: './x/', type: 'dir'}, {name: 'y', type: 'fifo'}, {name: '/x', type: 'fifo'})
    expect([...files].map(([path, {entry}]) => [path, entry.type])).toEqual([
      ['y', 'fifo'],
      ['x', 'fifo'],
    ])
  })

  it.each([
    ['an offset behind the data', [reg('a', {offset: 1000})], /outside/],
    ['a chunk of no file', [{name: 'a', type: 'chunk'}], /no file/],
    [
      'a chunk of another file',
      [reg('a', {chunkSize: 4}), {name: 'b', type: 'chunk', chunkOffset: 4}],
      /"b"/,
    ],
    ['a gap', [reg('a', {chunkSize: 4}), {name: 'a', type: 'chunk', chunkOffset: 5}], /follow each other/],
    ['a missing chunk', [reg('a', {chunkSize: 4})], /4 bytes instead of 10/],
    ['too large a chunk', [reg('a', {chunkSize: 11})], /follow each other/],
    [
      'chunks of a directory',
      [
        {name: 'd', type: 'dir'},
        {name: 'd', type: 'chunk'},
      ],
      /no contents/,
    ],
    ['a digest that is none', [reg('a', {chunkDigest: 'md5:1'})], /digest/],
    ['a name that leaves the layer', [{name: '../a', type: 'dir'}], /leaves/],
  ] as [string, TocEntry[], RegExp][])('is refused with %s', (_, entries, message) =>
    refuse(() => index(...entries), 'corrupt', message),
  )

  it('is refused with a chunk that no reader could hold', () =>
    refuse(() => index(reg('a', {size: 2 ** 40})), 'unsupported', /larger than/))

  it('is refused with a link that no file system could hold', () =>
    refuse(
      () => index({name: 'a', type: 'symlink', linkName: 'x/'.repeat(2049)}),
      'unsupported',
      /link is longer/,
    ))
})

describe('a time of a TOC', () => {
  it.each([
    ['2026-01-02T03:04:05Z', 1_767_323_045, 0],
    ['2026-01-02T03:04:05.25+01:30', 1_767_317_645, 250_000_000],
    ['1969-12-31T23:59:58.000000001Z', -2, 1],
    ['0000-02-29T00:00:00Z', -62_162_121_600, 0],
    ['', 0, 0],
  ])('%s is read', (text, seconds, nanoseconds) => expect(parseTocTime(text)).toEqual({seconds, nanoseconds}))

  it.each([
    '2026-04-31T00:00:00Z',
    '2025-02-29T00:00:00Z',
    '2026-01-01T24:00:00Z',
    '2026-01-01T00:00:60Z',
    '2026-01-01T00:00:00+24:00',
    '2026-01-01T00:00:00',
    'Jan 1 2020',
  ])('%s is none', text => expect(parseTocTime(text)).toBeUndefined())
})
