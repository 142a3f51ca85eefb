// What the words of `run` mean: flags, image, id; and a command whose words are its own.

import {CodedError} from '../lib/errors/coded-error.ts'
import {parseGpus, parseMount, type WorkloadOptions} from '../lib/runc/workload.ts'
import type {FlagShape} from './argv.ts'
import {readEnvFiles} from './workload.ts'

/** Image and id. */
const OWN_WORDS = 2

/**
 * Takes the container's command off the end of `argv`: everything after image and id, or after `--` there. oclif must not
 * see it: it would take its flags for ours, and sorts words that occur twice.
 */
export function splitCommand(
  argv: readonly string[],
  flags: Readonly<Record<string, FlagShape>>,
): {readonly own: string[]; readonly command: string[]} {
  let words = 0
  for (let index = 0; index < argv.length; index += 1) {
    const token = argv[index]!
    if (token.startsWith('-') && token !== '--') {
      if (takesNext(token, flags)) index += 1
    } else if (token !== '--' && (words += 1) === OWN_WORDS) {
      const command = argv.slice(index + 1)
      return {own: argv.slice(0, index + 1), command: command[0] === '--' ? command.slice(1) : command}
    }
  }
  return {own: [...argv], command: []}
}

/** The flags of `run` that say how the container differs from the image. */
export interface RunFlags {
  readonly tty: boolean
  readonly detach: boolean
  readonly user?: string | undefined
  readonly cwd?: string | undefined
  readonly env?: readonly string[] | undefined
  readonly 'env-file'?: readonly string[] | undefined
  readonly mount?: readonly string[] | undefined
  readonly cni: boolean
  readonly 'cni-plugin-conf-dir': string
  readonly 'cni-plugin-dir': string
  readonly 'net-host': boolean
  readonly gpus?: string | undefined
}

/** Reads and parses everything; throws `invalid-argument` for what makes no sense, `not-found` for a missing file. */
export async function runWorkloadFrom(flags: RunFlags, command: readonly string[]): Promise<WorkloadOptions> {
  if (flags.tty && !flags.detach && !process.stdin.isTTY) {
    throw new CodedError(
      'invalid-argument',
      'Cannot run the container: -t (--tty) needs a terminal as standard input',
    )
  }
  return {
    ...(command.length > 0 ? {entrypoint: [], args: command} : {}),
    env: [...(await readEnvFiles(flags['env-file'] ?? [])), ...(flags.env ?? [])],
    user: flags.user,
    cwd: flags.cwd,
    mounts: flags.mount?.map(parseMount),
    netHost: flags['net-host'],
    cni: flags.cni ? {confDir: flags['cni-plugin-conf-dir'], pluginDir: flags['cni-plugin-dir']} : undefined,
    terminal: flags.tty,
    gpus: flags.gpus ? parseGpus(flags.gpus) : undefined,
  }
}

function takesNext(token: string, flags: Readonly<Record<string, FlagShape>>): boolean {
  if (token.includes('=')) return false
  const name = token.replace(/^--?/, '')
  const flag = Object.hasOwn(flags, name)
    ? flags[name]
    : Object.values(flags).find(({char, aliases}) => char === name || aliases?.includes(name))
  return flag?.type === 'option'
}
