import {describe, expect, it} from 'vitest'
import {parsePrefetchList, selectPrefetchFiles} from '../../src/lib/record/prefetch-list.ts'

const LAYERS = [
  ['bin/sh', 'lib/b.so', 'lib/a.so', 'etc/conf'],
  ['lib/c.so', 'app/main.py', 'app/sub/x.py', 'etc/conf'],
]
const select = (text: string) => selectPrefetchFiles(parsePrefetchList(text, '"list"'), LAYERS)

describe('prefetch lists', () => {
  const check = (name: string, text: string, expected: readonly (readonly string[])[]) =>
    it(name, () => expect(select(text).layers).toEqual(expected))

  check('name files of each layer', 'etc/conf\n', [['etc/conf'], ['etc/conf']])
  check('are in the order of the list', 'lib/a.so\nbin/sh\n', [['lib/a.so', 'bin/sh'], []])
  check('expand a pattern in the order of the layer', 'lib/*.so', [['lib/b.so', 'lib/a.so'], ['lib/c.so']])
  check('name a file once, where it comes first', 'lib/a.so\nlib/*\n', [
    ['lib/a.so', 'lib/b.so'],
    ['lib/c.so'],
  ])
  check('span directories with **', 'app/**/*.py', [[], ['app/main.py', 'app/sub/x.py']])
  check('may have absolute and untidy paths', '/bin/sh\n./lib//a.so\n', [['bin/sh', 'lib/a.so'], []])
  check('may have comments, blank lines and other line ends', '# bin/sh\r\n\r\n  etc/conf  \r\n', [
    ['etc/conf'],
    ['etc/conf'],
  ])
  check('may start with a byte order mark', '\uFEFFbin/sh', [['bin/sh'], []])
  check('may be empty', '', [[], []])

  it('say which lines name nothing', () => {
    const {unmatched} = select('bin/sh\n# comment\nno/such\n*.none\n')
    expect(unmatched.map(({line, pattern}) => [line, pattern])).toEqual([
      [3, 'no/such'],
      [4, '*.none'],
    ])
  })

  const refuse = (name: string, text: string, message: string) =>
    it(`refuse ${name}`, () =>
      expect(() => parsePrefetchList(text, '"list"')).toThrow(
        expect.objectContaining({code: 'invalid-argument', message: expect.stringContaining(message)}),
      ))

  refuse('a broken pattern, with its line', 'a\n[b\n', 'line 2 of the prefetch list "list"')
  refuse('a line that names no file', '/\n', 'names no file')
  refuse('too many patterns', '*\n'.repeat(10_001), 'line 10001')
})
