// The command line of the daemon, as Go's flag package reads it.

import {resolve} from 'node:path'
import {describe, expect, it} from 'vitest'
import {parseFlags} from '../../src/daemons/snapshotter/flags.ts'

const DEFAULTS = {
  kind: 'run',
  address: '/run/containerd-stargz-grpc/containerd-stargz-grpc.sock',
  config: '/etc/containerd-stargz-grpc/config.toml',
  logLevel: 'info',
  root: '/var/lib/containerd-stargz-grpc',
}

describe('flags', () => {
  const check = (argv: string[], expected: object) =>
    it(argv.join(' ') || 'none', () => expect(parseFlags(argv)).toEqual({...DEFAULTS, ...expected}))

  check([], {})
  check(['--address', '/a', '-root', '/r'], {address: '/a', root: '/r'})
  check(['--config=/c=d', '-log-level=debug'], {config: '/c=d', logLevel: 'debug'})
  check(['--address=unix:///a'], {address: '/a'})
  check(['--log-level', 'WARN'], {logLevel: 'warning'})
  check(['--root', '/a', '--root', '/b'], {root: '/b'})
  check(['--root', 'a/../b', '--address=x.sock'], {root: resolve('b'), address: resolve('x.sock')})

  check(['--root', '-odd', '--address=/a'], {root: resolve('-odd'), address: '/a'})

  it('--version and --help count wherever they stand', () => {
    expect(parseFlags(['--root', '/r', '-version'])).toEqual({kind: 'version'})
    expect(parseFlags(['-h'])).toEqual({kind: 'help'})
  })
})

describe('flags that cannot be used are refused', () => {
  const check = (argv: string[], message: RegExp) =>
    it(argv.join(' '), () => expect(() => parseFlags(argv)).toThrow(message))

  check(['--nosuch'], /"--nosuch": unknown flag/)
  check(['start'], /"start": unknown flag/)
  check(['--root', '/r', '--', 'start'], /"start": unknown flag/)
  check(['-nosuch=1'], /"-nosuch=1": unknown flag/)
  check(['--root'], /"--root": it needs a value/)
  check(['--root='], /"--root": it needs a value/)
  check(['--log-level', 'loud'], /log level "loud": expected one of trace, debug/)
})
