// What the words of a command line mean before any command parses its own flags: ctr's global flags in front, aliases,
// requests for help or the version, and Go's way of writing flags.

import {CodedError} from '../lib/errors/coded-error.ts'

/** A command line, read up to its command. */
export type Invocation =
  | {readonly kind: 'version'}
  /** Help about `words`: a command, a topic, or the program when empty. */
  | {readonly kind: 'help'; readonly words: readonly string[]}
  | {
      readonly kind: 'command'
      /** The command's words and everything after them; aliases of topics are resolved. */
      readonly words: readonly string[]
      /** Global flags that stood before the command, spelled as the commands themselves understand them. */
      readonly globals: readonly string[]
    }

/** What flag parsing must know of a flag. */
export interface FlagShape {
  readonly type: 'boolean' | 'option'
  readonly char?: string | undefined
  readonly aliases?: readonly string[] | undefined
  /** Whether `--no-NAME` switches it off, as one does that is on unless told otherwise. */
  readonly allowNo?: boolean | undefined
}

/** The flags that may stand before the command: those of `ctr`, and ours. */
const GLOBAL_FLAGS: Readonly<Record<string, FlagShape>> = {
  address: {type: 'option', char: 'a'},
  namespace: {type: 'option', char: 'n'},
  timeout: {type: 'option'},
  'connect-timeout': {type: 'option'},
  store: {type: 'option'},
  'data-dir': {type: 'option'},
  debug: {type: 'boolean'},
  verbose: {type: 'boolean', char: 'v'},
  version: {type: 'boolean'},
  help: {type: 'boolean', char: 'h'},
}

/** `ctr`'s other names for its command groups that we have. */
const TOPIC_ALIASES: Readonly<Record<string, string>> = {images: 'image', i: 'image'}

/** Reads global flags and the command's words; throws `invalid-argument` for a global flag that nobody knows. */
export function parseInvocation(argv: readonly string[]): Invocation {
  const end = endOfGlobals(argv)
  const globals = normalizeFlags(argv.slice(0, end), GLOBAL_FLAGS)
  const unknown = globals.find((token, index) => token.startsWith('-') && !isKnown(token, globals[index - 1]))
  if (unknown !== undefined) {
    throw new CodedError(
      'invalid-argument',
      `Cannot use the global flag ${JSON.stringify(unknown)}: there is no such flag`,
    )
  }
  const words = resolveTopic(argv.slice(end))
  if (globals.includes('--version') || (words.length === 0 && globals.includes('-v')))
    return {kind: 'version'}
  const [first] = words
  if (first === undefined) return {kind: 'help', words: []}
  if (first === 'help' || first === 'h') return {kind: 'help', words: resolveTopic(words.slice(1))}
  if (globals.includes('--help') || globals.includes('-h') || asksForHelp(words)) {
    return {kind: 'help', words: beforeDashes(words).filter(word => !HELP_FLAGS.has(word))}
  }
  return {kind: 'command', words, globals}
}

/**
 * Rewrites Go's spellings into oclif's: `-platform x` and `-platform=x` (one dash before a long name), and `--oci=true`
 * or `--oci=false` for switches, where false leaves the flag out, or switches off what is on without it. Values and what follows `--` stay as they are.
 */
export function normalizeFlags(
  argv: readonly string[],
  flags: Readonly<Record<string, FlagShape>>,
): string[] {
  const normalized: string[] = []
  for (let index = 0; index < argv.length; index += 1) {
    const token = argv[index]!
    if (token === '--') return [...normalized, ...argv.slice(index)]
    const {name, value} = splitFlag(token)
    const flag = name === undefined ? undefined : findFlag(name, flags)
    if (name === undefined || flag === undefined) {
      normalized.push(token)
      continue
    }
    const dashed = name.length === 1 ? `-${name}` : `--${name}`
    if (flag.type === 'option') {
      normalized.push(value === undefined ? dashed : `${dashed}=${value}`)
      // The next token is this flag's value, whatever it looks like.
      if (value === undefined && index + 1 < argv.length) normalized.push(argv[(index += 1)]!)
    } else if (value === undefined || GO_TRUE.has(value)) {
      normalized.push(dashed)
    } else if (GO_FALSE.has(value)) {
      if (flag.allowNo) normalized.push(`--no-${name}`)
    } else {
      throw new CodedError('invalid-argument', `Cannot use ${JSON.stringify(token)}: expected true or false`)
    }
  }
  return normalized
}

/** The spellings that Go's strconv.ParseBool takes. */
const GO_TRUE = new Set(['1', 't', 'T', 'true', 'TRUE', 'True'])
const GO_FALSE = new Set(['0', 'f', 'F', 'false', 'FALSE', 'False'])

/** True when `--json` stands among the flags of a command line. */
export function asksForJson(argv: readonly string[]): boolean {
  return beforeDashes(argv).some(token => /^--?json(=(1|t|true))?$/i.test(token))
}

const HELP_FLAGS = new Set(['--help', '-help', '-h'])

function asksForHelp(words: readonly string[]): boolean {
  return beforeDashes(words).some(token => HELP_FLAGS.has(token))
}

function beforeDashes(argv: readonly string[]): readonly string[] {
  const dashes = argv.indexOf('--')
  return dashes === -1 ? argv : argv.slice(0, dashes)
}

function resolveTopic(words: readonly string[]): readonly string[] {
  const [first, ...rest] = words
  const topic = first === undefined ? undefined : TOPIC_ALIASES[first]
  return topic === undefined ? words : [topic, ...rest]
}

/** The index of the first word that is neither a global flag nor the value of one. */
function endOfGlobals(argv: readonly string[]): number {
  let index = 0
  while (index < argv.length && argv[index]!.startsWith('-') && argv[index] !== '-') {
    const {name, value} = splitFlag(argv[index]!)
    const takesNext =
      value === undefined && name !== undefined && findFlag(name, GLOBAL_FLAGS)?.type === 'option'
    index += takesNext ? 2 : 1
  }
  return Math.min(index, argv.length)
}

function isKnown(token: string, previous: string | undefined): boolean {
  const before = previous === undefined ? undefined : splitFlag(previous)
  const isValue =
    before?.name !== undefined &&
    before.value === undefined &&
    findFlag(before.name, GLOBAL_FLAGS)?.type === 'option'
  const {name} = splitFlag(token)
  return isValue || (name !== undefined && findFlag(name, GLOBAL_FLAGS) !== undefined)
}

function splitFlag(token: string): {name?: string; value?: string} {
  const match = /^--?([A-Za-z][A-Za-z0-9-]*)(?:=([\s\S]*))?$/.exec(token)
  if (!match) return {}
  const [, name, value] = match
  return value === undefined ? {name: name!} : {name: name!, value}
}

function findFlag(name: string, flags: Readonly<Record<string, FlagShape>>): FlagShape | undefined {
  if (name.length > 1 && Object.hasOwn(flags, name)) return flags[name]
  return Object.values(flags).find(flag => flag.char === name || flag.aliases?.includes(name))
}
