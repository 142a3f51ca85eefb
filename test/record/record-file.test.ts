import {describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {encodeRecord, parseRecord, recordPaths} from '../../src/lib/record/record-file.ts'

const manifestDigest = digestOf('manifest')
const parse = (text: string) => parseRecord(Buffer.from(text), '"r.json"')

describe('record files', () => {
  it('are written as the reference writes them', () => {
    const entry = {path: 'usr/bin/app', manifestDigest, layerIndex: 2}
    const line = `{"path":"usr/bin/app","manifestDigest":"${manifestDigest}","layerIndex":2}\n`
    expect(Buffer.from(encodeRecord([entry])).toString()).toBe(line)
    expect(parse(line)).toEqual([entry])
  })

  it('come back as they were written, whatever the names', () => {
    const paths = ['a b', 'quote"', 'brace}', 'back\\slash', 'new\nline', 'ünï', '{', 'lone\udcff']
    const entries = paths.map((path, layerIndex) => ({path, manifestDigest, layerIndex}))
    expect(parseRecord(encodeRecord(entries), 'it')).toEqual(entries)
  })

  const check = (name: string, text: string, expected: readonly string[]) =>
    it(`may hold ${name}`, () => expect(recordPaths(parse(text))).toEqual(expected))

  check('nothing', '', [])
  check('blank lines', '\n{"path":"a"}\n\n \r\n{"path":"b"}\n', ['a', 'b'])
  check('objects on one line', '{"path":"a"}{"path":"b"} {"path":"c"}', ['a', 'b', 'c'])
  check('objects on many lines', '{\n  "path":\n"a"\n}\n', ['a'])
  check('fields that are not known', '{"path":"a","size":{"x":[1,"}"]}}', ['a'])
  check('no layer', '{"path":"a","manifestDigest":"","layerIndex":null}', ['a'])
  check('absolute and untidy paths', '{"path":"/a//b/./c"}{"path":"./d/"}{"path":"../../e"}', [
    'a/b/c',
    'd',
    'e',
  ])
  check('a path many times', '{"path":"b"}{"path":"a","layerIndex":1}{"path":"b","layerIndex":0}', ['b', 'a'])

  it('keep an entry once for each layer', () => {
    expect(parse('{"path":"a","layerIndex":1}{"path":"/a","layerIndex":1}{"path":"a"}')).toEqual([
      {path: 'a', layerIndex: 1},
      {path: 'a'},
    ])
  })

  const refuse = (name: string, text: string | Uint8Array, message: string) =>
    it(`must not hold ${name}`, () =>
      expect(() => parseRecord(Buffer.from(text), '"r.json"')).toThrow(
        expect.objectContaining({code: 'invalid-argument', message: expect.stringContaining(message)}),
      ))

  refuse('an object that does not end', '{"path":"a"}\n{"path":"b"\n', 'line 2')
  refuse('a string that does not end', '{"path":"a}\n', 'line 1')
  refuse('anything but objects', '{"path":"a"}\n["b"]\n', 'line 2')
  refuse('bare text', '\n\nusr/bin/app\n', 'line 3')
  refuse('broken JSON', '{"path":"a"}\n{"path":}', 'line 2')
  refuse('an entry without a path', '{"layerIndex":1}', '"path" is not a string')
  refuse('a path that is no string', '{"path":5}', '"path" is not a string')
  refuse('the root', '{"path":"/"}', 'names no file')
  refuse('a NUL', '{"path":"a\\u0000"}', 'names no file')
  refuse('an endless path', `{"path":"${'a'.repeat(5000)}"}`, '4096')
  refuse('a malformed digest', '{"path":"a","manifestDigest":"sha256:1"}', '"manifestDigest"')
  refuse('a negative layer', '{"path":"a","layerIndex":-1}', '"layerIndex"')
  refuse('bytes that are not UTF-8', Uint8Array.of(0x7b, 0xff, 0x7d), 'not UTF-8')

  it('must not be huge', () => {
    expect(() => parseRecord(new Uint8Array(64 * 1024 * 1024 + 1), 'it')).toThrow(/exceed the limit/)
  })
})
