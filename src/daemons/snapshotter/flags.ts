// The snapshotter's command line.

import {resolve} from 'node:path'
import {LOG_LEVELS, type LogLevel, parseLogLevel} from '../process/log-level.ts'
import {parseWords, unknownFlag} from '../process/parse-words.ts'

export const DEFAULT_ADDRESS = '/run/containerd-stargz-grpc/containerd-stargz-grpc.sock'
export const DEFAULT_CONFIG = '/etc/containerd-stargz-grpc/config.toml'
export const DEFAULT_ROOT = '/var/lib/containerd-stargz-grpc'

/** What was asked for on the command line; paths are absolute. */
export interface DaemonFlags {
  readonly kind: 'run'
  /** Path of the unix socket. */
  readonly address: string
  readonly config: string
  readonly logLevel: LogLevel
  readonly root: string
}

export type Invocation = DaemonFlags | {readonly kind: 'version'} | {readonly kind: 'help'}

export const USAGE = `Usage of containerd-stargz-grpc:
  --address string
        address for the snapshotter's GRPC server (default "${DEFAULT_ADDRESS}")
  --config string
        path to the configuration file (default "${DEFAULT_CONFIG}")
  --log-level string
        set the logging level [${LOG_LEVELS.join(', ')}] (default "info")
  --root string
        path to the root directory for this snapshotter (default "${DEFAULT_ROOT}")
  --version
        print the version of this program

containerd-stargz-grpc config default|check|dump [--config PATH]
        print the defaults, check a configuration file, or print it with the defaults filled in
`

const VALUE_FLAGS = ['address', 'config', 'log-level', 'root'] as const

/** Parses the arguments after the program's name; throws `invalid-argument`. */
export function parseFlags(argv: readonly string[]): Invocation {
  const words = parseWords(argv, VALUE_FLAGS)
  if (words.kind !== 'run') return words
  const {values, rest} = words
  if (rest.length > 0) throw unknownFlag(rest[0]!)
  return {
    kind: 'run',
    address: resolve((values.get('address') ?? DEFAULT_ADDRESS).replace(/^unix:(?:\/\/)?/, '')),
    config: resolve(values.get('config') ?? DEFAULT_CONFIG),
    logLevel: parseLogLevel(values.get('log-level') ?? 'info'),
    root: resolve(values.get('root') ?? DEFAULT_ROOT),
  }
}
