import {describe, expect, it} from 'vitest'
import {compileGlob} from '../../src/lib/record/glob.ts'

describe('glob patterns', () => {
  const check = (pattern: string, yes: readonly string[], no: readonly string[] = []) => {
    for (const path of yes)
      it(`${pattern} matches ${path}`, () => expect(compileGlob(pattern).matches(path)).toBe(true))
    for (const path of no)
      it(`${pattern} does not match ${path}`, () => expect(compileGlob(pattern).matches(path)).toBe(false))
  }

  check('usr/bin/app', ['usr/bin/app'], ['usr/bin/apps', 'bin/app', 'usr/bin'])
  check('*', ['a', '.hidden'], ['a/b'])
  check('*.so', ['x.so', '.so'], ['x.so.1', 'd/x.so'])
  check('lib*.so*', ['libc.so', 'libc.so.6', 'lib.so'], ['xlib.so'])
  check('a/*/c', ['a/b/c'], ['a/c', 'a/b/b/c', 'a//c/'])
  check('a?c', ['abc', 'aüc', 'a😀c'], ['ac', 'a/c', 'abbc'])
  check('[a-c]x', ['ax', 'cx'], ['dx', '/x', 'abx'])
  check('[!a-c]x', ['dx', '-x'], ['ax', '/x'])
  check('[^/]x', ['ax'], ['/x'])
  check('[]a]x', [']x', 'ax'], ['bx'])
  check('[a-]x', ['-x', 'ax'], ['bx'])
  check('[\\]]x', [']x'], ['\\x'])
  check('[*?]', ['*', '?'], ['a'])
  check('**', ['a', 'a/b/c'])
  check('**/c', ['c', 'a/c', 'a/b/c'], ['ac', 'a/bc', 'c/d'])
  check('a/**', ['a/b', 'a/b/c'], ['b/a', 'ab'])
  check('a/**/c', ['a/c', 'a/b/c', 'a/b/b/c'], ['ac', 'a/b/cc', 'x/a/c'])
  check('a/**/*.py', ['a/x.py', 'a/b/c/x.py'], ['a/x.pyc', 'x.py'])
  check('**/a/**/b', ['a/b', 'x/a/y/z/b'], ['a', 'b'])
  check('a**b', ['ab', 'axxb'], ['a/b'])
  check('{a,b}/c', ['a/c', 'b/c'], ['c/c', '{a,b}/c'])
  check('{a,b{c,d}}', ['a', 'bc', 'bd'], ['b', 'bcd'])
  check('x{,y}', ['x', 'xy'], ['xyy'])
  check('{**/,}z', ['z', 'a/b/z'], ['az'])
  check('a,b', ['a,b'])
  check('\\*', ['*'], ['a', '\\*'])
  check('a\\{b', ['a{b'])
  check(' a', [' a'], ['a'])

  for (const pattern of ['[', '[a', '[!', 'a{b', '{a,{b}', 'a\\', '[a\\', '{'.repeat(17), 'a'.repeat(5000)]) {
    it(`${JSON.stringify(pattern.slice(0, 20))} is refused`, () => {
      expect(() => compileGlob(pattern)).toThrow(expect.objectContaining({code: 'invalid-argument'}))
    })
  }

  it('a pattern without special characters is known to be one path', () => {
    expect(compileGlob('usr/bin/app').literal).toBe('usr/bin/app')
    expect(compileGlob('usr/bin/*').literal).toBeUndefined()
  })

  it('patterns that make others backtrack for years take no time', () => {
    const path = `${'a'.repeat(200)}/${'a'.repeat(200)}`
    expect(compileGlob(`${'*a'.repeat(60)}b`).matches(path)).toBe(false)
    expect(compileGlob(`${'**/'.repeat(60)}b`).matches(path)).toBe(false)
    expect(compileGlob(`${'{a,aa}'.repeat(60)}b`).matches(path)).toBe(false)
  })
})
