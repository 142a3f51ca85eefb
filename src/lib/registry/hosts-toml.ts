// containerd's hosts.toml (docs/hosts.md of containerd): mirrors of a registry, and how to talk to each host.

import {readdir, readFile} from 'node:fs/promises'
import {join, resolve} from 'node:path'
import {parse} from 'smol-toml'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import {isRecord} from '../oci/descriptor.ts'
import {ALL_CAPABILITIES, type Capability} from './endpoint.ts'

/** One host of a hosts.toml. Paths are absolute. */
export interface HostEntry {
  /** As written: `https://mirror.example/path`, or without a scheme. */
  readonly address: string
  readonly capabilities: readonly Capability[]
  readonly ca: readonly string[]
  readonly clients: readonly {readonly cert: string; readonly key: string}[]
  readonly skipVerify: boolean
  readonly headers: Readonly<Record<string, string>>
  readonly overridePath: boolean
  /** The repository's path there, where it is another than the reference's. */
  readonly repository?: string | undefined
  /** Where this was read, for messages. */
  readonly file: string
}

export interface HostsConfig {
  readonly mirrors: readonly HostEntry[]
  /** The origin, where the file names it. */
  readonly server: HostEntry | undefined
}

/** Most hosts in one file; each may be tried for every request. */
const MAX_HOSTS = 64

/**
 * What a hosts directory says about a registry domain: the first of `<domain>_<port>_`, `<domain>:<port>` and
 * `_default` that exists. Without a hosts.toml in it, its `*.crt` files are authorities and its `*.cert` and `*.key`
 * files client certificates, as Docker has them. Undefined when there is nothing.
 */
export async function readHostsDirectory(root: string, domain: string): Promise<HostsConfig | undefined> {
  const colon = domain.lastIndexOf(':')
  const portable = colon > 0 ? [`${domain.slice(0, colon)}_${domain.slice(colon + 1)}_`] : []
  for (const name of [...portable, domain, '_default']) {
    const directory = resolve(root, name)
    const files = await listFiles(directory)
    if (!files) continue
    if (!files.includes('hosts.toml')) return readDockerDirectory(directory, domain, files)
    const file = join(directory, 'hosts.toml')
    return parseHostsToml(await readFile(file, 'utf8'), {file, directory})
  }
  return undefined
}

/** Parses the text of a hosts.toml; throws `invalid-argument`, naming the file and the field. */
export function parseHostsToml(
  text: string,
  where: {readonly file: string; readonly directory: string},
): HostsConfig {
  let table: unknown
  try {
    table = parse(text)
  } catch (cause) {
    throw new CodedError('invalid-argument', `Cannot parse ${where.file}`, {cause})
  }
  if (!isRecord(table)) throw invalid(where.file, 'it is no table')
  const hosts = table.host ?? {}
  if (!isRecord(hosts)) throw invalid(where.file, '"host" is no table')
  const entries = Object.entries(hosts)
  if (entries.length > MAX_HOSTS) throw invalid(where.file, `it has more than ${MAX_HOSTS} hosts`)
  const mirrors = entries.map(([address, fields]) => parseHost(address, fields, where))
  if (table.server === undefined) return {mirrors, server: undefined}
  if (typeof table.server !== 'string') throw invalid(where.file, '"server" is no string')
  return {mirrors, server: parseHost(table.server, table, where)}
}

function parseHost(
  address: string,
  fields: unknown,
  {file, directory}: {readonly file: string; readonly directory: string},
): HostEntry {
  if (!isRecord(fields)) throw invalid(file, `host ${JSON.stringify(address)} is no table`)
  const at = (path: string) => resolve(directory, path)
  return {
    address,
    capabilities: parseCapabilities(fields.capabilities, file),
    ca: parseStrings(fields.ca, file, 'ca').map(at),
    clients: parseClients(fields.client, file).map(({cert, key}) => ({cert: at(cert), key: at(key)})),
    skipVerify: parseFlag(fields.skip_verify, file, 'skip_verify'),
    headers: parseHeaders(fields.header, file),
    overridePath: parseFlag(fields.override_path, file, 'override_path'),
    file,
  }
}

function parseCapabilities(value: unknown, file: string): readonly Capability[] {
  if (value === undefined) return ALL_CAPABILITIES
  const names = parseStrings(value, file, 'capabilities').map(name => name.toLowerCase())
  const unknown = names.find(name => !ALL_CAPABILITIES.some(known => known === name))
  if (unknown !== undefined) throw invalid(file, `unknown capability ${JSON.stringify(unknown)}`)
  return ALL_CAPABILITIES.filter(known => names.includes(known))
}

/** `client` is a file with certificate and key, a list of such, or a list of [certificate, key] pairs. */
function parseClients(value: unknown, file: string): {cert: string; key: string}[] {
  if (value === undefined) return []
  return (Array.isArray(value) ? value : [value]).map((item: unknown) => {
    if (typeof item === 'string') return {cert: item, key: item}
    const [cert, key, ...rest]: unknown[] = Array.isArray(item) ? item : []
    if (typeof cert === 'string' && typeof key === 'string' && rest.length === 0) {
      return {cert, key: key === '' ? cert : key}
    }
    throw invalid(file, '"client" is neither a file nor a list of [certificate, key]')
  })
}

function parseHeaders(value: unknown, file: string): Record<string, string> {
  if (value === undefined) return {}
  if (!isRecord(value)) throw invalid(file, '"header" is no table')
  return Object.fromEntries(
    Object.entries(value).map(([name, content]) => {
      const text = parseStrings(content, file, `header.${name}`).join(', ')
      // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must not be there.
      if (!/^[\w!#$%&'*+.^`|~-]+$/.test(name) || /[\u0000-\u0008\u000a-\u001f\u007f]/.test(text)) {
        throw invalid(file, `header ${JSON.stringify(name)} is no valid HTTP header`)
      }
      return [name.toLowerCase(), text]
    }),
  )
}

function parseStrings(value: unknown, file: string, field: string): string[] {
  if (value === undefined) return []
  const list: unknown[] = Array.isArray(value) ? value : [value]
  if (list.every(item => typeof item === 'string')) return list
  throw invalid(file, `"${field}" is neither a string nor a list of strings`)
}

function parseFlag(value: unknown, file: string, field: string): boolean {
  if (value === undefined) return false
  if (typeof value === 'boolean') return value
  throw invalid(file, `"${field}" is neither true nor false`)
}

function readDockerDirectory(directory: string, domain: string, files: readonly string[]): HostsConfig {
  const server: HostEntry = {
    address: domain === 'docker.io' ? 'https://registry-1.docker.io' : domain,
    capabilities: ALL_CAPABILITIES,
    ...certificatesOf(directory, files),
    skipVerify: false,
    headers: {},
    overridePath: false,
    file: directory,
  }
  return {mirrors: [], server}
}

/** Paths of the certificates of a host, in the first of the directories that has a directory for it. */
export async function findCertificates(
  directories: readonly string[],
  host: string,
): Promise<Pick<HostEntry, 'ca' | 'clients'>> {
  for (const directory of directories) {
    const files = await listFiles(join(directory, host))
    if (files) return certificatesOf(join(directory, host), files)
  }
  return {ca: [], clients: []}
}

/** Docker's names: `*.crt` are authorities, `*.cert` and `*.key` client certificates. */
function certificatesOf(directory: string, files: readonly string[]): Pick<HostEntry, 'ca' | 'clients'> {
  const at = (name: string) => join(directory, name)
  return {
    ca: files.filter(name => name.endsWith('.crt')).map(at),
    clients: files
      .filter(name => name.endsWith('.cert'))
      .map(name => ({cert: at(name), key: at(name.replace(/\.cert$/, '.key'))})),
  }
}

async function listFiles(directory: string): Promise<string[] | undefined> {
  return readdir(directory).catch(error => {
    if (hasCode(error, 'not-found')) return undefined
    throw new CodedError('failed-precondition', `Cannot read hosts directory ${JSON.stringify(directory)}`, {
      cause: error,
    })
  })
}

function invalid(file: string, problem: string): CodedError {
  return new CodedError('invalid-argument', `Cannot use ${file}: ${problem}`)
}
