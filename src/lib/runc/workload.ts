// What runs in the sandbox, and how it differs from what the image says.

import type {Readable, Writable} from 'node:stream'
import {CodedError} from '../errors/coded-error.ts'

/** A mount that the user asks for, as in `--mount type=bind,src=/a,dst=/b,options=rbind:ro`. */
export interface WorkloadMount {
  readonly type: string
  readonly source: string
  readonly destination: string
  readonly options: readonly string[]
}

/** GPUs by index or UUID, or all of them (CDI devices of kind `nvidia.com/gpu`). */
export type GpuSelection = 'all' | readonly string[]

/** Networking by CNI plugins. */
export interface CniOptions {
  /** Directory of `*.conflist`, `*.conf` and `*.json`; the first in name order counts. */
  readonly confDir: string
  /** Directory of the plugin programs. */
  readonly pluginDir: string
}

/** Overrides of the image's configuration and of the sandbox; everything left out is the image's, or the default. */
export interface WorkloadOptions {
  /** Replaces the image's entrypoint; its command stays unless `args` replaces that too. */
  readonly entrypoint?: readonly string[] | undefined
  /** Replaces the image's command. */
  readonly args?: readonly string[] | undefined
  /** `NAME=value`; the last one of a name counts. A bare `NAME` removes the variable. */
  readonly env?: readonly string[] | undefined
  /** `name`, `uid`, `name:group` or `uid:gid`. */
  readonly user?: string | undefined
  /** Created when the image lacks it. */
  readonly cwd?: string | undefined
  readonly mounts?: readonly WorkloadMount[] | undefined
  readonly dnsNameservers?: readonly string[] | undefined
  readonly dnsSearchDomains?: readonly string[] | undefined
  readonly dnsOptions?: readonly string[] | undefined
  /** Further lines of `/etc/hosts`. */
  readonly addHosts?: readonly HostEntry[] | undefined
  /** Uses the host's network namespace, `/etc/hosts` and `/etc/resolv.conf`. */
  readonly netHost?: boolean | undefined
  readonly cni?: CniOptions | undefined
  /** Gives the workload a terminal: the caller's standard input must be one. */
  readonly terminal?: boolean | undefined
  /** How large that terminal is from the start; without, the workload may see it before it has a size. */
  readonly terminalSize?: {readonly rows: number; readonly columns: number} | undefined
  /** What the workload reads; nothing (end of file) when left out. With `terminal` it is the caller's standard input. */
  readonly stdin?: Readable | 'inherit' | undefined
  /** Where the workload's output goes besides being watched. */
  readonly stdout?: Writable | undefined
  readonly stderr?: Writable | undefined
  readonly gpus?: GpuSelection | undefined
}

/** A line of `/etc/hosts`. */
export interface HostEntry {
  readonly host: string
  readonly address: string
}

/**
 * Parses one `--mount` value: CSV of `type=`, `source=`|`src=`, `destination=`|`dst=`|`target=`, `options=` (separated
 * by `:`), with CSV quoting for values that hold commas. Throws `invalid-argument`.
 */
export function parseMount(text: string): WorkloadMount {
  const invalid = (problem: string) =>
    new CodedError('invalid-argument', `Cannot parse the mount ${JSON.stringify(text)}: ${problem}`)
  const found: {type?: string; source?: string; destination?: string; options?: readonly string[]} = {}
  for (const field of splitCsv(text)) {
    const equals = field.indexOf('=')
    if (equals < 0) throw invalid(`expected "key=value", found ${JSON.stringify(field)}`)
    const value = field.slice(equals + 1)
    switch (field.slice(0, equals).trim()) {
      case 'type':
        found.type = value
        break
      case 'source':
      case 'src':
        found.source = value
        break
      case 'destination':
      case 'dst':
      case 'target':
        found.destination = value
        break
      case 'options':
        found.options = value.split(':').filter(Boolean)
        break
      default:
        throw invalid(
          `unknown key ${JSON.stringify(field.slice(0, equals))}; keys are type, src, dst and options`,
        )
    }
  }
  if (!found.destination?.startsWith('/')) throw invalid('"dst" must be an absolute path')
  const type = found.type ?? 'bind'
  if (type === 'bind' && !found.source?.startsWith('/')) throw invalid('"src" must be an absolute path')
  const options = found.options ?? []
  // Without `bind` or `rbind` the kernel would take the type "bind" for a file system and fail with ENODEV.
  const binds = type !== 'bind' || options.some(option => option === 'bind' || option === 'rbind')
  return {
    type,
    source: found.source ?? type,
    destination: found.destination,
    options: binds ? options : ['rbind', ...options],
  }
}

/** Parses `--gpus`: `all`, or CSV of indices or UUIDs. Throws `invalid-argument`. */
export function parseGpus(text: string): GpuSelection {
  const names = text.split(',').map(name => name.trim())
  if (names.includes('all')) {
    if (names.length > 1) throw invalidGpus(text)
    return 'all'
  }
  // CDI device names: letters, digits, `-`, `_`, `.`, `:`.
  if (!names.every(name => /^[A-Za-z0-9][A-Za-z0-9._:-]*$/.test(name))) throw invalidGpus(text)
  return [...new Set(names)]
}

/** Parses one item of `--add-hosts`, `host:address` (the address may be IPv6, also in brackets). */
export function parseHostEntry(text: string): HostEntry {
  const colon = text.indexOf(':')
  const host = text.slice(0, Math.max(colon, 0)).trim()
  const address = text
    .slice(colon + 1)
    .trim()
    .replace(/^\[(.*)\]$/, '$1')
  if (!/^[^\s#:]+$/.test(host) || !/^[0-9A-Fa-f:.]+(%[\w.-]+)?$/.test(address)) {
    throw new CodedError(
      'invalid-argument',
      `Cannot parse the host ${JSON.stringify(text)}: expected "host:IP"`,
    )
  }
  return {host, address}
}

/** RFC 4180 fields of one line: `a,"b,c",d`; a doubled quote is a quote. */
function splitCsv(text: string): string[] {
  const fields: string[] = []
  let field = ''
  let quoted = false
  for (let index = 0; index < text.length; index++) {
    const char = text[index]!
    if (quoted && char === '"' && text[index + 1] === '"') field += text[++index]
    else if (char === '"') quoted = !quoted
    else if (char === ',' && !quoted) {
      fields.push(field)
      field = ''
    } else field += char
  }
  if (quoted)
    throw new CodedError('invalid-argument', `Cannot parse ${JSON.stringify(text)}: a quote is not closed`)
  fields.push(field)
  return fields
}

function invalidGpus(text: string): CodedError {
  return new CodedError(
    'invalid-argument',
    `Cannot parse the GPUs ${JSON.stringify(text)}: expected "all" or a list such as "0,1"`,
  )
}
