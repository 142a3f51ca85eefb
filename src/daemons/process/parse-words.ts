// A daemon's command line in the manner of Go's flag package: `--name value`, `-name value`, `--name=value`.

import {parseArgs} from 'node:util'
import {CodedError} from '../../lib/errors/coded-error.ts'

/** `rest` is what no flag takes. */
export type Words =
  | {readonly kind: 'run'; readonly values: ReadonlyMap<string, string>; readonly rest: readonly string[]}
  | {readonly kind: 'version'}
  | {readonly kind: 'help'}

/** Parses the arguments after the program's name; flags outside of `names` throw `invalid-argument`. */
export function parseWords(argv: readonly string[], names: readonly string[]): Words {
  const {tokens} = parseArgs({
    // Go takes one dash for two.
    args: argv.map(word => word.replace(/^-(?=[a-z])/, '--')),
    options: Object.fromEntries(names.map(name => [name, {type: 'string'}])),
    // Go takes for a value whatever stands behind its flag.
    strict: false,
    allowPositionals: true,
    tokens: true,
  })
  const values = new Map<string, string>()
  for (const token of tokens) {
    // The first word that is no flag ends them.
    if (token.kind === 'positional') return {kind: 'run', values, rest: argv.slice(token.index)}
    if (token.kind === 'option-terminator') return {kind: 'run', values, rest: argv.slice(token.index + 1)}
    const {name, index, inlineValue} = token
    if (name === 'version' && token.value !== 'false') return {kind: 'version'}
    if (name === 'help' || name === 'h') return {kind: 'help'}
    if (!names.includes(name)) throw unknownFlag(argv[index]!)
    const value = inlineValue ? token.value : argv[index + 1]
    if (!value) throw new CodedError('invalid-argument', `Cannot use flag "--${name}": it needs a value`)
    values.set(name, value)
  }
  return {kind: 'run', values, rest: []}
}

export function unknownFlag(argument: string): CodedError {
  return new CodedError('invalid-argument', `Cannot use argument ${JSON.stringify(argument)}: unknown flag`)
}
