// What plain `ctr` has and we do not is handed to it: same arguments, same terminal, same process.

import {accessSync, constants} from 'node:fs'
import {delimiter, join} from 'node:path'
import {CodedError} from '../lib/errors/coded-error.ts'
import {closestName} from './suggestion.ts'

interface Words {
  readonly globals: readonly string[]
  readonly words: readonly string[]
}

/**
 * What `ctr` of containerd 1.6 to 2.1 has, by all its names. A command that it gets later is handed over too, unless it
 * looks like one of ours.
 */
const CTR_GROUPS =
  words(`plugins plugin version containers container c content events event images image i leases
  namespaces namespace ns pprof run snapshots snapshot tasks task t install oci shim deprecations sandboxes sandbox sb s
  info help h`)
const CTR_IMAGE_COMMANDS =
  words(`check export import list ls mount unmount pull push prune delete del remove rm tag label
  convert usage inspect encrypt decrypt`)

/**
 * Becomes `ctr` with the user's own arguments; does not return. Throws `invalid-argument` when what was typed looks like
 * one of `ours` (`image pull`, `run`) and is nothing of `ctr`'s, and `unsupported` when there is no `ctr` on the PATH.
 */
export function handOverToCtr(invocation: Words, ours: readonly string[]): never {
  refuseUnknown(invocation.words, ours)
  const ctr = findProgram('ctr')
  const become = process.execve
  if (ctr === undefined || become === undefined) {
    const name = JSON.stringify(invocation.words.slice(0, 2).join(' '))
    throw new CodedError(
      'unsupported',
      `Cannot run ${name}: ctr-remote has no such command, and there is no "ctr" on the PATH to hand it to`,
    )
  }
  const argv = ['ctr', ...withoutOwnFlags(invocation.globals), ...invocation.words]
  return become.call(process, ctr, argv, process.env)
}

/** Throws for what `ctr` cannot have either: a slip of the fingers, or something below a group that only we have. */
function refuseUnknown([first, second]: readonly string[], ours: readonly string[]): void {
  const group = second === undefined ? [] : ours.filter(name => name.startsWith(`${first} `))
  const inGroup = group.length > 0
  const known = inGroup ? (first === 'image' ? CTR_IMAGE_COMMANDS : []) : CTR_GROUPS
  const typed = inGroup ? `${first} ${second}` : first!
  if (known.includes(inGroup ? second! : typed)) return
  const closest = inGroup
    ? closestName(
        second!,
        group.map(name => name.slice(first!.length + 1)),
      )
    : closestName(
        typed,
        ours.map(name => name.split(' ', 1)[0]!),
      )
  if (closest === undefined && (!inGroup || first === 'image')) return
  const hint =
    closest === undefined
      ? `see ctr-remote ${first} --help`
      : `did you mean ${JSON.stringify(inGroup ? `${first} ${closest}` : closest)}?`
  throw new CodedError(
    'invalid-argument',
    `Cannot run ${JSON.stringify(typed)}: there is no such command; ${hint}`,
  )
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

function words(text: string): readonly string[] {
  return text.split(/\s+/)
}
