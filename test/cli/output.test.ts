import {readFileSync} from 'node:fs'
import {resolve} from 'node:path'
import {CLIError} from '@oclif/core/errors'
import {describe, expect, it} from 'vitest'
import {parseDurationMs} from '../../src/cli/duration.ts'
import {EXIT_CODES, failureJson, failureOf} from '../../src/cli/failure.ts'
import {parseLabels} from '../../src/cli/label-arguments.ts'
import {createPlainProgress} from '../../src/cli/progress.ts'
import {splitAddress, splitCredentials} from '../../src/cli/serving.ts'
import {dataDirectory} from '../../src/cli/stores.ts'
import {closestName, editDistance} from '../../src/cli/suggestion.ts'
import {formatTable} from '../../src/cli/table.ts'
import {formatBytes, formatDuration} from '../../src/cli/units.ts'
import {CodedError, type ErrorCode} from '../../src/lib/errors/coded-error.ts'
import {platformsFrom} from '../../src/lib/image/platform-selection.ts'
import type {ProgressEvent} from '../../src/lib/io/progress.ts'
import {formatPlatform, hostPlatform} from '../../src/lib/oci/platform.ts'

const DOCUMENT = readFileSync(resolve(import.meta.dirname, '../../docs/cli.md'), 'utf8')

const invalid = expect.objectContaining({code: 'invalid-argument'})

describe('exit codes', () => {
  // `| 3 | \`not-found\` | …`; the codes of signals stand in one row, whose second is that of Ctrl-C.
  const documented = [...DOCUMENT.matchAll(/^\| (?:129, )?(\d+)(?:, 143)? \| `([a-z-]+)` \|/gm)]
  for (const [, exitCode, code] of documented) {
    it(`${code} exits ${exitCode}, as documented`, () => {
      const error = new CodedError(code as ErrorCode, 'Cannot do it')
      expect(failureOf(error, undefined)).toEqual({
        code,
        message: 'Cannot do it',
        exitCode: Number(exitCode),
      })
    })
  }

  it('are all documented, and no two are one', () => {
    expect(documented.map(([, , code]) => code).sort()).toEqual(Object.keys(EXIT_CODES).sort())
    expect(new Set(Object.values(EXIT_CODES)).size).toBe(documented.length)
  })

  it('a bad command line exits 2, and points to the help in the same line', () => {
    const failure = failureOf(new CLIError('Nonexistent flag: --x\nSee more help with --help'), undefined)
    expect(failure).toEqual({
      code: 'invalid-argument',
      message: 'Nonexistent flag: --x; see --help',
      exitCode: 2,
    })
  })

  it('a time limit is no bug: what was waited for is unavailable', async () => {
    const signal = AbortSignal.timeout(0)
    await new Promise(passed => signal.addEventListener('abort', passed))
    expect(failureOf(signal.reason, undefined)).toMatchObject({code: 'unavailable', exitCode: 8})
  })

  it('whatever breaks after a signal is the cancellation', () => {
    expect(failureOf(new Error('socket hang up'), 143)).toMatchObject({code: 'cancelled', exitCode: 143})
  })

  it('causes are told, once each', () => {
    const cause = new CodedError('unavailable', 'connect ECONNREFUSED')
    const error = new CodedError('unavailable', 'Cannot reach the registry', {cause})
    expect(failureOf(error, undefined).message).toBe('Cannot reach the registry: connect ECONNREFUSED')
  })

  it('what is no error object at all is an internal failure', () => {
    expect(failureOf('boom', undefined)).toEqual({code: 'internal', message: 'boom', exitCode: 1})
    expect(failureOf(new Error(''), undefined).message).not.toBe('')
  })

  it('JSON has the code and the message', () => {
    const failure = failureOf(new CodedError('not-found', 'Cannot find "x"'), undefined)
    expect(JSON.parse(failureJson(failure))).toEqual({error: {code: 'not-found', message: 'Cannot find "x"'}})
  })
})

describe('did you mean', () => {
  const names = ['pull', 'push', 'ls', 'version', 'optimize', 'convert']
  const check = (typed: string, expected: string | undefined) =>
    it(`${typed} -> ${expected}`, () => expect(closestName(typed, names)).toBe(expected))
  check('pul', 'pull')
  check('verison', 'version')
  check('optimise', 'optimize')
  check('conv', 'convert')
  check('pu', undefined)
  check('containers', undefined)
  check('x', undefined)

  it('a swap of neighbours is one edit', () => expect(editDistance('ab', 'ba')).toBe(1))
})

describe('durations', () => {
  const check = (text: string, expected: number) =>
    it(text, () => expect(parseDurationMs(text)).toBe(expected))
  check('0', 0)
  check('0s', 0)
  check('300ms', 300)
  check('1.5h', 5_400_000)
  check('1m30s', 90_000)
  for (const text of ['', '5', '5 s', '-5s', 's', '5s!', '1d']) {
    it(`refuses ${JSON.stringify(text)}`, () => expect(() => parseDurationMs(text)).toThrow(invalid))
  }
})

describe('platforms', () => {
  const check = (flags: Parameters<typeof platformsFrom>[0], expected: unknown) =>
    it(JSON.stringify(flags), () => {
      const selection = platformsFrom(flags)
      expect(selection === 'all' ? selection : selection.map(formatPlatform)).toEqual(expected)
    })
  check({}, [formatPlatform(hostPlatform())])
  check({platform: []}, [formatPlatform(hostPlatform())])
  check({'all-platforms': true}, 'all')
  check({platform: ['linux/amd64', 'arm64']}, ['linux/amd64', 'linux/arm64'])
  check({platform: ['linux/amd64', 'amd64', 'linux/x86_64']}, ['linux/amd64'])
  it('refuses what is none', () => expect(() => platformsFrom({platform: ['linux/a b']})).toThrow(invalid))
})

describe('plain progress', () => {
  const event = (phase: ProgressEvent['phase'], doneBytes?: number): ProgressEvent => ({
    id: 'sha256:a',
    label: 'layer 1/2',
    phase,
    totalBytes: 4096,
    ...(doneBytes === undefined ? {} : {doneBytes}),
  })

  it('prints when an item ends, and every ten seconds while it runs', () => {
    const lines: string[] = []
    let now = 0
    const sink = createPlainProgress(
      line => lines.push(line),
      () => now,
    )
    sink(event('waiting'))
    sink(event('running', 0))
    now = 9_000
    sink(event('running', 1024))
    now = 10_000
    sink(event('running', 2048))
    now = 12_500
    sink(event('done', 4096))
    expect(lines).toEqual(['layer 1/2  2.0 KiB / 4.0 KiB  205 B/s', 'layer 1/2  done  4.0 KiB  12.5s'])
  })

  it('says why an item was skipped', () => {
    const lines: string[] = []
    createPlainProgress(
      line => lines.push(line),
      () => 0,
    )({...event('skipped'), note: 'already there'})
    expect(lines).toEqual(['layer 1/2  skipped  4.0 KiB  already there'])
  })
})

describe('small words', () => {
  it('tables are aligned with spaces, as ctr makes them', () => {
    expect(formatTable(['REF', 'SIZE'], [['debian', '1 B']])).toBe('REF    SIZE \ndebian 1 B  ')
    expect(formatTable(['REF', 'SIZE'], [])).toBe('REF SIZE ')
  })
  it('sizes', () => {
    expect([0, 1023, 1024, 54_840_525, 3 * 2 ** 40].map(formatBytes)).toEqual([
      '0 B',
      '1023 B',
      '1.0 KiB',
      '52.3 MiB',
      '3.0 TiB',
    ])
  })
  it('durations', () => expect([0, 999.6, 12_340].map(formatDuration)).toEqual(['0ms', '1000ms', '12.3s']))
  it('labels', () => {
    expect(parseLabels(['a=b', 'c=d=e', 'f='])).toEqual({a: 'b', c: 'd=e', f: ''})
    for (const label of ['', 'a', '=b']) expect(() => parseLabels([label])).toThrow(invalid)
  })
  it('addresses to listen on', () => {
    expect(splitAddress('127.0.0.1:5000')).toEqual({host: '127.0.0.1', port: 5000})
    expect(splitAddress('[::1]:0')).toEqual({host: '::1', port: 0})
    expect(splitAddress(':5000')).toEqual({host: '0.0.0.0', port: 5000})
    for (const text of ['', '5000', 'host', 'host:', 'host:99999', '::1:5000', 'host:x']) {
      expect(() => splitAddress(text), text).toThrow(invalid)
    }
  })
  it('credentials of clients; a mistake does not print them', () => {
    expect(splitCredentials('ci:a:b')).toEqual({username: 'ci', password: 'a:b'})
    for (const text of ['secret', ':secret', 'secret:']) {
      expect(() => splitCredentials(text)).toThrow(/^(?!.*secret)/)
    }
  })
  it('the data directory follows the XDG specification', () => {
    expect(dataDirectory(undefined, {XDG_DATA_HOME: '/d', HOME: '/h'})).toBe('/d/ctr-remote')
    expect(dataDirectory(undefined, {XDG_DATA_HOME: 'relative', HOME: '/h'})).toBe(
      '/h/.local/share/ctr-remote',
    )
    expect(dataDirectory('/x', {HOME: '/h'})).toBe('/x')
    expect(() => dataDirectory(undefined, {})).toThrow(expect.objectContaining({code: 'failed-precondition'}))
  })
})
