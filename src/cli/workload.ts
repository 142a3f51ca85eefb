// The workload that the flags of `optimize` describe.

import {readFile} from 'node:fs/promises'
import {CodedError} from '../lib/errors/coded-error.ts'
import type {Priorities} from '../lib/optimize/priorities.ts'
import {parseGpus, parseHostEntry, parseMount, type WorkloadOptions} from '../lib/runc/workload.ts'

/** The flags that say what runs, and how. */
export interface WorkloadFlags {
  readonly terminal: boolean
  readonly i: boolean
  readonly user?: string | undefined
  readonly cwd?: string | undefined
  readonly entrypoint?: string | undefined
  readonly args?: string | undefined
  readonly env?: readonly string[] | undefined
  readonly 'env-file'?: readonly string[] | undefined
  readonly mount?: readonly string[] | undefined
  readonly 'dns-nameservers': string
  readonly 'dns-search-domains'?: string | undefined
  readonly 'dns-options'?: string | undefined
  readonly 'add-hosts'?: string | undefined
  readonly cni: boolean
  readonly 'cni-plugin-conf-dir': string
  readonly 'cni-plugin-dir': string
  readonly 'net-host': boolean
  readonly gpus?: string | undefined
}

/** The flags that say what comes first. */
export interface PriorityFlags {
  readonly 'no-optimize': boolean
  readonly static: boolean
  readonly 'prefetch-list'?: string | undefined
  readonly period: number
  readonly 'wait-on-line'?: string | undefined
  readonly 'wait-on-signal': boolean
  readonly 'record-out'?: string | undefined
  readonly 'profile-out'?: string | undefined
  readonly profile?: readonly string[] | undefined
}

/** What an optimized image shall have first. */
export function prioritiesFrom(flags: PriorityFlags, workload: WorkloadOptions): Priorities {
  if (flags['no-optimize']) return {from: 'nothing'}
  const file = flags['prefetch-list']
  if (file) return {from: 'list', file}
  if (flags.static) return {from: 'image', workload, recordOut: flags['record-out']}
  if (flags.profile) return {from: 'profiles', files: flags.profile}
  return {
    from: 'workload',
    workload,
    periodSeconds: flags.period,
    waitOnLine: flags['wait-on-line'],
    waitOnSignal: flags['wait-on-signal'],
    recordOut: flags['record-out'],
    profileOut: flags['profile-out'],
  }
}

/** Largest --env-file, bytes: environments are limited to 128 KiB per string and a few MiB in all. */
const MAX_ENV_FILE_SIZE = 4 * 1024 * 1024

/** Reads and parses everything; throws `invalid-argument` for what makes no sense, `not-found` for a missing file. */
export async function workloadFrom(flags: WorkloadFlags): Promise<WorkloadOptions> {
  if (flags.terminal && !flags.i) {
    throw invalid('-t (--terminal) needs -i: a terminal without input is of no use')
  }
  if (flags.terminal && !process.stdin.isTTY) {
    throw invalid('-t (--terminal) needs a terminal as standard input')
  }
  if (flags.cni && flags['net-host']) throw invalid('--cni and --net-host exclude each other')
  const {gpus} = flags
  return {
    entrypoint: parseWords('--entrypoint', flags.entrypoint),
    args: parseWords('--args', flags.args),
    env: [...(await readEnvFiles(flags['env-file'] ?? [])), ...(flags.env ?? [])],
    user: flags.user,
    cwd: flags.cwd,
    mounts: flags.mount?.map(parseMount),
    dnsNameservers: splitList(flags['dns-nameservers']),
    dnsSearchDomains: splitList(flags['dns-search-domains']),
    dnsOptions: splitList(flags['dns-options']),
    addHosts: splitList(flags['add-hosts']).map(parseHostEntry),
    netHost: flags['net-host'],
    cni: flags.cni ? {confDir: flags['cni-plugin-conf-dir'], pluginDir: flags['cni-plugin-dir']} : undefined,
    terminal: flags.terminal,
    terminalSize: process.stderr.isTTY ? process.stderr : undefined,
    stdin: flags.i ? 'inherit' : undefined,
    stdout: process.stderr,
    stderr: process.stderr,
    gpus: gpus ? parseGpus(gpus) : undefined,
  }
}

/** A JSON array of strings, as `--entrypoint` and `--args` take it; an empty flag is as good as none. */
export function parseWords(flag: string, text: string | undefined): readonly string[] | undefined {
  if (text === undefined || text === '') return undefined
  let words: unknown
  try {
    words = JSON.parse(text)
  } catch {}
  if (!Array.isArray(words) || !words.every(word => typeof word === 'string')) {
    throw invalid(`${flag} ${JSON.stringify(text)} is no JSON array of strings, such as ["sh","-c","true"]`)
  }
  return words
}

/** Comma-separated values without empty ones. */
export function splitList(text: string | undefined): string[] {
  return (text ?? '')
    .split(',')
    .map(item => item.trim())
    .filter(item => item !== '')
}

/** `NAME=value` lines of files, in order; blank lines and comments are skipped. */
export async function readEnvFiles(files: readonly string[]): Promise<string[]> {
  const texts = await Promise.all(files.map(readEnvFile))
  return texts
    .flatMap(text => text.split(/\r?\n/))
    .filter(line => line.trim() !== '' && !line.startsWith('#'))
}

async function readEnvFile(file: string): Promise<string> {
  const text = await readFile(file, 'utf8').catch(cause => {
    throw new CodedError('not-found', `Cannot read the environment file "${file}"`, {cause})
  })
  if (text.length <= MAX_ENV_FILE_SIZE) return text
  throw invalid(`the environment file "${file}" is larger than ${MAX_ENV_FILE_SIZE} bytes`)
}

function invalid(problem: string): CodedError {
  return new CodedError('invalid-argument', `Cannot run the workload: ${problem}`)
}
