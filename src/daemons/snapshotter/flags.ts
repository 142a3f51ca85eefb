// The daemon's command line, in the manner of Go's flag package: `--name value`, `-name value`, `--name=value`.

import {resolve} from 'node:path'
import {CodedError} from '../../lib/errors/coded-error.ts'

/** The names that the log knows, least first. */
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warning', 'error', 'fatal', 'panic'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

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
`

const VALUE_FLAGS = ['address', 'config', 'log-level', 'root'] as const

/** Parses the arguments after the program's name; throws `invalid-argument`. */
export function parseFlags(argv: readonly string[]): Invocation {
  const values = new Map<string, string>()
  for (let index = 0; index < argv.length; index++) {
    const argument = argv[index]!
    const match = /^--?([a-z-]+)(?:=(.*))?$/s.exec(argument)
    const name = match?.[1]
    if (name === 'version' && match?.[2] !== 'false') return {kind: 'version'}
    if (name === 'help' || name === 'h') return {kind: 'help'}
    if (!VALUE_FLAGS.some(known => known === name)) {
      throw new CodedError(
        'invalid-argument',
        `Cannot use argument ${JSON.stringify(argument)}: unknown flag`,
      )
    }
    const value = match?.[2] ?? argv[++index]
    if (value === undefined || value === '') {
      throw new CodedError('invalid-argument', `Cannot use flag "--${name}": it needs a value`)
    }
    values.set(name!, value)
  }
  return {
    kind: 'run',
    address: resolve((values.get('address') ?? DEFAULT_ADDRESS).replace(/^unix:(?:\/\/)?/, '')),
    config: resolve(values.get('config') ?? DEFAULT_CONFIG),
    logLevel: parseLogLevel(values.get('log-level') ?? 'info'),
    root: resolve(values.get('root') ?? DEFAULT_ROOT),
  }
}

function parseLogLevel(text: string): LogLevel {
  const name = text.toLowerCase() === 'warn' ? 'warning' : text.toLowerCase()
  const level = LOG_LEVELS.find(known => known === name)
  if (level) return level
  throw new CodedError(
    'invalid-argument',
    `Cannot use log level ${JSON.stringify(text)}: expected one of ${LOG_LEVELS.join(', ')}`,
  )
}
