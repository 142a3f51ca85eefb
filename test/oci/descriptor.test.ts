import {describe, expect, test} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {parseDescriptor, withAnnotations, withContent} from '../../src/lib/oci/descriptor.ts'

const VALID = {mediaType: 'text/plain', digest: digestOf('x'), size: 1}

test('a descriptor is accepted with fields that nobody knows', () => {
  const value = {
    ...VALID,
    annotations: {a: 'b'},
    urls: ['https://x'],
    platform: {os: 'linux', architecture: 'arm64'},
    extra: 1,
  }
  expect(parseDescriptor(value, 'it')).toEqual(value)
})

test('null stands for absent, as in what Go writes', () => {
  expect(
    parseDescriptor({...VALID, annotations: null, urls: null, platform: null, data: null}, 'it'),
  ).toEqual(VALID)
})

test('a digest of another algorithm is unsupported by its name', () => {
  expect(() => parseDescriptor({...VALID, digest: `sha512:${'0'.repeat(128)}`}, 'layer 3')).toThrow(
    expect.objectContaining({
      code: 'unsupported',
      message: expect.stringMatching(/^Cannot use layer 3: its digest "sha512:0+" is not SHA-256/),
    }),
  )
})

describe('new content in the place of another', () => {
  const PLACED = {...VALID, annotations: {a: 'b'}, platform: {os: 'linux', architecture: 'arm64'}}
  const content = {mediaType: 'text/html', digest: digestOf('new'), size: 3}
  test('keeps what is said of the place, and neither the old bytes nor where they are', () =>
    expect(withContent({...PLACED, urls: ['https://x'], data: 'eA=='}, content)).toEqual({
      ...PLACED,
      ...content,
    }))
  test('keeps both where the bytes are the same', () => {
    const same = {...PLACED, urls: ['https://x'], data: 'eA=='}
    expect(withContent(same, {...same, mediaType: 'text/html'})).toEqual({...same, mediaType: 'text/html'})
  })
})

test('the largest exact size is accepted', () => {
  expect(parseDescriptor({...VALID, size: Number.MAX_SAFE_INTEGER}, 'it').size).toBe(2 ** 53 - 1)
})

test.each([
  ['no object', 'text'],
  ['a list', [VALID]],
  ['null', null],
  ['no mediaType', {...VALID, mediaType: undefined}],
  ['an empty mediaType', {...VALID, mediaType: ''}],
  ['a huge mediaType', {...VALID, mediaType: 'x'.repeat(256)}],
  ['no digest', {...VALID, digest: undefined}],
  ['a digest that is a path', {...VALID, digest: '../../etc/passwd'}],
  ['no size', {...VALID, size: undefined}],
  ['a negative size', {...VALID, size: -1}],
  ['a fraction as size', {...VALID, size: 1.5}],
  ['an inexact size', {...VALID, size: 2 ** 53}],
  ['a size that is text', {...VALID, size: '1'}],
  ['annotations that are no strings', {...VALID, annotations: {a: 1}}],
  ['annotations that are a list', {...VALID, annotations: ['a']}],
  ['a platform without architecture', {...VALID, platform: {os: 'linux'}}],
  ['urls that are no strings', {...VALID, urls: [1]}],
  ['data that are no text', {...VALID, data: [1]}],
])('%s is corrupt, and named', (_, value) => {
  expect(() => parseDescriptor(value, 'layer 3')).toThrow(
    expect.objectContaining({code: 'corrupt', message: expect.stringContaining('layer 3')}),
  )
})

describe('annotations', () => {
  test('are added to those that are there', () =>
    expect(withAnnotations({...VALID, annotations: {a: '1', b: '1'}}, {b: '2', c: '3'}).annotations).toEqual({
      a: '1',
      b: '2',
      c: '3',
    }))
  test('are removed by undefined, and the last one takes the field with it', () =>
    expect(withAnnotations({...VALID, annotations: {a: '1'}}, {a: undefined})).toEqual(VALID))
  test('leave the descriptor that was given alone', () => {
    const before = {...VALID, annotations: {a: '1'}}
    withAnnotations(before, {a: '2'})
    expect(before.annotations.a).toBe('1')
  })
})
