import {describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {encodeProfile, mergeProfiles, parseProfile, profiledFiles} from '../../src/lib/record/profile-file.ts'
import {parseRecord, type RecordEntry} from '../../src/lib/record/record-file.ts'

const [A, B] = [digestOf('a'), digestOf('b')]

const PROFILE: readonly RecordEntry[] = [
  {path: 'bin/app', manifestDigest: A, layerIndex: 1, reads: [{offset: 0, end: 4096, atMs: 3}]},
  {path: 'etc/opened', manifestDigest: A, layerIndex: 0, reads: []},
  {
    path: 'lib/x',
    manifestDigest: A,
    layerIndex: 0,
    reads: [
      {offset: 0, end: 10, atMs: 90},
      {offset: 8192, end: 9000, atMs: 40},
    ],
  },
]

const parse = (text: string) => parseProfile(Buffer.from(text), '"file"')

describe('a profile', () => {
  it('is a record with what was read of each file, one object a line', () => {
    const bytes = encodeProfile(PROFILE)
    expect(Buffer.from(bytes).toString().split('\n')[2]).toBe(
      `{"path":"lib/x","manifestDigest":"${A}","layerIndex":0,"reads":[[0,10,90],[8192,9000,40]]}`,
    )
    expect(parseProfile(bytes, 'it')).toEqual(PROFILE)
    expect(parseRecord(bytes, 'it').map(({path}) => path)).toEqual(['bin/app', 'etc/opened', 'lib/x'])
  })

  it.each([
    ['reads that are no list', '{"path":"a","reads":7}'],
    ['a read that is no list', '{"path":"a","reads":[7]}'],
    ['a read of two numbers', '{"path":"a","reads":[[0,1]]}'],
    ['a read of nothing', '{"path":"a","reads":[[1,1,0]]}'],
    ['a negative place', '{"path":"a","reads":[[-1,1,0]]}'],
    ['numbers that are none', '{"path":"a","reads":[["0",1,0]]}'],
    ['numbers that are not whole', '{"path":"a","reads":[[0,1.5,0]]}'],
  ])('does not have %s', (_, line) => {
    expect(() => parse(`\n${line}`)).toThrow(/^Cannot parse line 2 of the record "file": "reads" is no list/)
  })

  it('names a file', () => {
    expect(() => parse(' \n')).toThrow('Cannot use the profile "file": it names no file')
  })

  it('takes reads that overlap for one, in whatever order they are', () => {
    expect(parse('{"path":"a","reads":[[8,12,1],[0,9,5]]}')[0]!.reads).toEqual([
      {offset: 0, end: 12, atMs: 1},
    ])
  })

  it('counts for the layers of its own image, and for all layers of any other', () => {
    const own = profiledFiles(PROFILE, {manifestDigest: A, layerIndex: 0})
    expect(own.paths).toEqual(['etc/opened', 'lib/x'])
    expect([...own.reads!.keys()]).toEqual(['lib/x'])
    expect(profiledFiles(PROFILE, {manifestDigest: A, layerIndex: 5})).toEqual({paths: [], reads: new Map()})
    const other = profiledFiles(PROFILE, {manifestDigest: B, layerIndex: 5})
    expect(other.paths).toEqual(['bin/app', 'etc/opened', 'lib/x'])
    expect([...other.reads!.keys()]).toEqual(['bin/app', 'lib/x'])
  })

  it('says nothing of reads where it is a record, and takes files of records among others for read whole', () => {
    const record = parse('{"path":"a"}\n{"path":"b"}')
    expect(profiledFiles(record, {manifestDigest: A, layerIndex: 0})).toEqual({
      paths: ['a', 'b'],
      reads: undefined,
    })
    const mixed = parse('{"path":"a","reads":[[0,4,7]]}\n{"path":"b"}')
    expect(profiledFiles(mixed, {manifestDigest: A, layerIndex: 0}).reads!.get('b')).toEqual([
      {offset: 0, end: Number.MAX_SAFE_INTEGER, atMs: 7},
    ])
  })
})

describe('several profiles', () => {
  it('are one, with what is read earliest in any of them first', () => {
    const first = parse('{"path":"a","reads":[[0,4,0]]}\n{"path":"b","reads":[[0,4,100]]}')
    const second = parse('{"path":"b","reads":[[8,9,20]]}\n{"path":"c","reads":[[0,4,50]]}')
    expect(mergeProfiles([first, second])).toEqual([
      {path: 'a', reads: [{offset: 0, end: 4, atMs: 0}]},
      {
        path: 'b',
        reads: [
          {offset: 0, end: 4, atMs: 100},
          {offset: 8, end: 9, atMs: 20},
        ],
      },
      {path: 'c', reads: [{offset: 0, end: 4, atMs: 50}]},
    ])
    expect(mergeProfiles([first])).toEqual(first)
    expect(mergeProfiles([])).toEqual([])
  })

  it('have a file whole that one of them has whole', () => {
    const [entry] = mergeProfiles([parse('{"path":"a","reads":[[0,4,0]]}'), parse('{"path":"a"}')])
    expect(entry).toEqual({path: 'a'})
  })

  it('of a thousand workloads are one', () => {
    const profiles = Array.from({length: 1000}, (_, index) =>
      parse(
        `{"path":"common","reads":[[0,4096,${index}]]}\n{"path":"own/${index}","reads":[[0,5,${index}]]}`,
      ),
    )
    const merged = mergeProfiles(profiles)
    expect(merged).toHaveLength(1001)
    expect(merged[0]).toEqual({path: 'common', reads: [{offset: 0, end: 4096, atMs: 0}]})
  })
})
