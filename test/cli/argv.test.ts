import {describe, expect, it} from 'vitest'
import {asksForJson, normalizeFlags, parseInvocation} from '../../src/cli/argv.ts'

describe('the command line up to its command', () => {
  const check = (line: string, expected: object) =>
    it(JSON.stringify(line), () => {
      expect(parseInvocation(line.split(' ').filter(Boolean))).toEqual(expected)
    })

  check('', {kind: 'help', words: []})
  check('--help', {kind: 'help', words: []})
  check('-h', {kind: 'help', words: []})
  check('help', {kind: 'help', words: []})
  check('help images pull', {kind: 'help', words: ['image', 'pull']})
  check('image pull --help', {kind: 'help', words: ['image', 'pull']})
  check('--help image pull', {kind: 'help', words: ['image', 'pull']})
  check('--version', {kind: 'version'})
  check('-v', {kind: 'version'})
  check('-n k8s.io --version', {kind: 'version'})
  check('-v image ls', {kind: 'command', words: ['image', 'ls'], globals: ['-v']})
  check('images ls', {kind: 'command', words: ['image', 'ls'], globals: []})
  check('i ls', {kind: 'command', words: ['image', 'ls'], globals: []})
  check('image images', {kind: 'command', words: ['image', 'images'], globals: []})
  check('-n k8s.io i ls', {kind: 'command', words: ['image', 'ls'], globals: ['-n', 'k8s.io']})
  check('-namespace=k8s.io -address /run/c.sock run x', {
    kind: 'command',
    words: ['run', 'x'],
    globals: ['--namespace=k8s.io', '--address', '/run/c.sock'],
  })
  check('--timeout 5s --connect-timeout=1s --debug --store local image ls -q', {
    kind: 'command',
    words: ['image', 'ls', '-q'],
    globals: ['--timeout', '5s', '--connect-timeout=1s', '--debug', '--store', 'local'],
  })
  check('--debug=false image ls', {kind: 'command', words: ['image', 'ls'], globals: []})
  check('run a b -- --help', {kind: 'command', words: ['run', 'a', 'b', '--', '--help'], globals: []})

  for (const line of ['--frobnicate image ls', '-x image ls', '--debug=maybe image ls', '-- image ls']) {
    it(`refuses ${JSON.stringify(line)}`, () => {
      expect(() => parseInvocation(line.split(' '))).toThrow(
        expect.objectContaining({code: 'invalid-argument'}),
      )
    })
  }
})

describe("Go's spellings of flags", () => {
  const flags = {
    platform: {type: 'option'},
    oci: {type: 'boolean'},
    unpack: {type: 'boolean', allowNo: true},
    terminal: {type: 'boolean', char: 't'},
    interactive: {type: 'boolean', char: 'i'},
    'estargz-gzip-helper': {type: 'option', aliases: ['GH']},
    'wait-on-line': {type: 'option'},
  } as const

  const check = (argv: string[], expected: string[]) =>
    it(JSON.stringify(argv), () => {
      expect(normalizeFlags(argv, flags)).toEqual(expected)
    })

  check(['-platform', 'linux/arm64', 'src'], ['--platform', 'linux/arm64', 'src'])
  check(['-platform=linux/arm64'], ['--platform=linux/arm64'])
  check(['--oci=true', '-oci'], ['--oci', '--oci'])
  check(['--oci=false', 'src'], ['src'])
  check(['--unpack=false', '--unpack=true'], ['--no-unpack', '--unpack'])
  check(['-it'], ['-it'])
  check(['-t', '-i'], ['-t', '-i'])
  check(['-GH', 'pigz'], ['--GH', 'pigz'])
  check(['--wait-on-line', '-oci'], ['--wait-on-line', '-oci'])
  check(['--wait-on-line=a=b\nc'], ['--wait-on-line=a=b\nc'])
  check(['--', '-oci'], ['--', '-oci'])
  check(['--unknown=1', '-unknown'], ['--unknown=1', '-unknown'])
  check(['--platform'], ['--platform'])
  check(['-constructor', '--toString'], ['-constructor', '--toString'])
})

describe('--json', () => {
  it('counts only before the dashes', () => {
    expect(asksForJson(['image', 'ls', '--json'])).toBe(true)
    expect(asksForJson(['image', 'ls', '-json'])).toBe(true)
    expect(asksForJson(['image', 'ls', '--', '--json'])).toBe(false)
    expect(asksForJson(['image', 'ls', '--jsonx'])).toBe(false)
  })
})
