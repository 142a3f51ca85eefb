// What plain `ctr` has and we do not is handed to it: same arguments, same terminal, same process.

import {accessSync, constants} from 'node:fs'
import {delimiter, join} from 'node:path'
import {CodedError} from '../lib/errors/coded-error.ts'

/**
 * Becomes `ctr` with the user's own arguments; does not return. Throws `unsupported` with `problem` when there is no
 * `ctr` on the PATH.
 */
export function handOverToCtr(
  invocation: {readonly globals: readonly string[]; readonly words: readonly string[]},
  problem: string,
): never {
  const ctr = findProgram('ctr')
  const become = process.execve
  if (ctr === undefined || become === undefined) {
    throw new CodedError('unsupported', `${problem}, and there is no "ctr" on the PATH to hand it to`)
  }
  const argv = ['ctr', ...withoutOwnFlags(invocation.globals), ...invocation.words]
  return become.call(process, ctr, argv, process.env)
}

/** Global flags that only we have; `-v` would make `ctr` print its version. */
const OWN_OPTIONS = new Set(['--store', '--data-dir'])
const OWN_SWITCHES = new Set(['-v', '--verbose'])

function withoutOwnFlags(globals: readonly string[]): string[] {
  return globals.filter((token, index) => {
    const isOwn = OWN_SWITCHES.has(token) || OWN_OPTIONS.has(token.split('=', 1)[0]!)
    return !isOwn && !OWN_OPTIONS.has(globals[index - 1] ?? '')
  })
}

function findProgram(name: string): string | undefined {
  for (const directory of (process.env.PATH ?? '').split(delimiter)) {
    const path = join(directory || '.', name)
    try {
      accessSync(path, constants.X_OK)
      return path
    } catch {}
  }
  return undefined
}
