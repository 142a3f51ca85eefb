// What is wrong with a command line, in one line: oclif says it in several, with hints that are not about the mistake.

import {CLIError} from '@oclif/core/errors'
import {CodedError} from '../lib/errors/coded-error.ts'
import {closestName} from './suggestion.ts'

/** What is told of a command. */
export interface CommandShape {
  /** `image:convert` */
  readonly id: string
  readonly args?: Readonly<Record<string, ArgumentShape>> | undefined
  readonly flags: Readonly<Record<string, unknown>>
  readonly baseFlags?: Readonly<Record<string, unknown>> | undefined
}

interface ArgumentShape {
  readonly required?: boolean | undefined
  readonly multiple?: boolean | undefined
}

/** What oclif's parser knows of a mistake: missing arguments (shapes), superfluous ones (words), unknown flags. */
type ParserError = Error & {
  readonly args?: readonly (string | {readonly name: string})[]
  readonly flags?: readonly string[]
}

/** oclif's own words around the message of an error that reading a flag's value has thrown. */
const VALUE_MISTAKE = /^Parsing (--[\w-]+) \n\t([\s\S]*?)(\nSee more help with --help)?$/

/** Whether an error is about the command line. */
export function isUsageError(error: Error): boolean {
  return error instanceof CLIError || VALUE_MISTAKE.test(error.message)
}

/** The same mistake as an `invalid-argument` for people. */
export function explainUsage(error: Error, command: CommandShape): CodedError {
  return new CodedError('invalid-argument', describe(error, command))
}

/** `ctr-remote image convert [FLAGS] SOURCE TARGET`. */
export function usageOf({id, args = {}}: CommandShape): string {
  const shown = Object.entries(args).map(([name, {required, multiple}]) => {
    const word = `${name.toUpperCase()}${multiple ? '...' : ''}`
    return required ? word : `[${word}]`
  })
  return ['ctr-remote', id.replaceAll(':', ' '), '[FLAGS]', ...shown].join(' ')
}

function describe({args = [], flags = [], message}: ParserError, command: CommandShape): string {
  const help = `see ctr-remote ${command.id.replaceAll(':', ' ')} --help`
  const usage = `usage: ${usageOf(command)}`
  const missing = args.flatMap(arg => (typeof arg === 'string' ? [] : [arg.name.toUpperCase()]))
  const superfluous = args.flatMap(arg => (typeof arg === 'string' ? [JSON.stringify(arg)] : []))
  if (missing.length > 0) return `Missing ${missing.join(' and ')}; ${usage}`
  if (superfluous.length > 0) return `Unexpected ${superfluous.join(', ')}; ${usage}`
  if (flags.length > 0) return `Unknown ${flags.map(flag => describeFlag(flag, command)).join(', ')}; ${help}`
  const [, flag, problem] = VALUE_MISTAKE.exec(message) ?? []
  if (flag !== undefined) return `Cannot use ${flag}: ${problem}`
  // "The following error occurred:", and each in a line of its own.
  const lines = message.split('\n').filter(line => !/^(The following|See more help)/.test(line))
  return `${lines.map(line => line.trim()).join('; ')}; ${help}`
}

function describeFlag(flag: string, {flags, baseFlags}: CommandShape): string {
  const known = [...Object.keys(flags), ...Object.keys(baseFlags ?? {}), 'json', 'help']
  const closest = closestName(flag.replace(/^--?/, ''), known)
  return closest === undefined ? `flag ${flag}` : `flag ${flag} (did you mean --${closest}?)`
}
