// The layer store's command line.

import {resolve} from 'node:path'
import {CodedError} from '../../lib/errors/coded-error.ts'
import {LOG_LEVELS, type LogLevel, parseLogLevel} from '../process/log-level.ts'
import {parseWords} from '../process/parse-words.ts'

export const DEFAULT_ADDRESS = '/var/lib/stargz-store/store.sock'
export const DEFAULT_CONFIG = '/etc/stargz-store/config.toml'
export const DEFAULT_ROOT = '/var/lib/stargz-store'

/** What was asked for on the command line; paths are absolute. */
export interface StoreFlags {
  readonly kind: 'run'
  /** Path of the unix socket. */
  readonly address: string
  readonly config: string
  readonly logLevel: LogLevel
  readonly root: string
  /** Where the layers are shown. */
  readonly mountpoint: string
}

export type Invocation = StoreFlags | {readonly kind: 'version'} | {readonly kind: 'help'}

export const USAGE = `Usage of stargz-store: stargz-store [options] <mountpoint>
  --addr string
        path to the socket for credentials and status (default "${DEFAULT_ADDRESS}")
  --config string
        path to the configuration file (default "${DEFAULT_CONFIG}")
  --log-level string
        set the logging level [${LOG_LEVELS.join(', ')}] (default "info")
  --root string
        path to the root directory for this layer store (default "${DEFAULT_ROOT}")
  --version
        print the version of this program

stargz-store config default|check|dump [--config PATH]
        print the defaults, check a configuration file, or print it with the defaults filled in
`

/** Parses the arguments after the program's name; throws `invalid-argument`. */
export function parseFlags(argv: readonly string[]): Invocation {
  const words = parseWords(argv, ['addr', 'config', 'log-level', 'root'])
  if (words.kind !== 'run') return words
  const {values, rest} = words
  const [mountpoint, tooMuch] = rest
  if (mountpoint === undefined || mountpoint === '') {
    throw new CodedError('invalid-argument', 'Cannot serve layers: give the mountpoint as the last argument')
  }
  if (tooMuch !== undefined) {
    throw new CodedError(
      'invalid-argument',
      `Cannot use argument ${JSON.stringify(tooMuch)}: flags come before the mountpoint`,
    )
  }
  return {
    kind: 'run',
    address: resolve((values.get('addr') ?? DEFAULT_ADDRESS).replace(/^unix:(?:\/\/)?/, '')),
    config: resolve(values.get('config') ?? DEFAULT_CONFIG),
    logLevel: parseLogLevel(values.get('log-level') ?? 'info'),
    root: resolve(values.get('root') ?? DEFAULT_ROOT),
    mountpoint: resolve(mountpoint),
  }
}
