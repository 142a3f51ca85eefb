// Podman's and CRI-O's registries.conf (containers-registries.conf(5), version 2): where a repository is read from instead,
// and how hosts are trusted (containers-certs.d(5)).

import {readdir, readFile} from 'node:fs/promises'
import {join} from 'node:path'
import {parse} from 'smol-toml'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import {isRecord} from '../oci/descriptor.ts'
import {formatReference, type Reference, registryHostOf} from '../oci/reference.ts'
import {ALL_CAPABILITIES, type Capability} from './endpoint.ts'
import {findCertificates, type HostEntry} from './hosts-toml.ts'

/** Where Podman's files are; those that are missing count as empty. */
export interface RegistriesConfFiles {
  /** The first of these that is there is the main file. */
  readonly main: readonly string[]
  /** Directories of `*.conf` files, which take the place of what those before them say of the same prefix. */
  readonly dropIns: readonly string[]
  /** Directories with a directory of certificates for each `host[:port]`; the first that has one for a host counts. */
  readonly certificates: readonly string[]
}

/** Where Podman looks, for the user and the environment that we run with. */
export function findRegistriesConf(env: Readonly<Record<string, string | undefined>>): RegistriesConfFiles {
  const home = env.XDG_CONFIG_HOME || (env.HOME ? join(env.HOME, '.config') : undefined)
  const own = home === undefined ? [] : [join(home, 'containers')]
  const asked = env.CONTAINERS_REGISTRIES_CONF
  return {
    main: asked ? [asked] : [...own, '/etc/containers'].map(directory => join(directory, 'registries.conf')),
    dropIns: ['/etc/containers', ...own].map(directory => join(directory, 'registries.conf.d')),
    certificates: [...own, '/etc/containers', '/etc/docker'].map(directory => join(directory, 'certs.d')),
  }
}

/** A `[[registry]]` or `[[registry.mirror]]`. */
interface Place {
  /** `host[:port][/path]` that takes the prefix's place; undefined for the reference's own. */
  readonly location: string | undefined
  readonly insecure: boolean
}

interface Mirror extends Place {
  readonly pulls: 'all' | 'digest-only' | 'tag-only'
}

interface RegistryTable extends Place {
  readonly prefix: string
  readonly blocked: boolean
  readonly mirrors: readonly Mirror[]
  /** Where this was read, for messages. */
  readonly file: string
}

/** Most registries and mirrors of all files together. */
const MAX_PLACES = 10_000
const MIRROR_CAPABILITIES: readonly Capability[] = ['pull', 'resolve']

/**
 * The hosts to try for a reference, the origin last. Throws `invalid-argument`, naming file and field, for what Podman would
 * not understand either, and `permission-denied` for a registry that is blocked.
 */
export async function readRegistriesConf(
  files: RegistriesConfFiles,
  reference: Reference,
): Promise<readonly HostEntry[]> {
  const text = formatReference(reference)
  const table = longestMatch(await readTables(files), text)
  const found = table?.registry
  if (found?.blocked) {
    throw new CodedError('permission-denied', `Cannot read from ${reference.domain}: ${found.file} blocks it`)
  }
  const at = async (place: Place | undefined, capabilities: readonly Capability[]) => {
    const moved = place?.location === undefined ? undefined : `${place.location}${text.slice(table!.length)}`
    const {host, repository} = moved === undefined ? unmoved(reference) : splitPlace(moved, found!.file)
    const entry: HostEntry = {
      address: host,
      capabilities,
      ...(await findCertificates(files.certificates, host)),
      skipVerify: false,
      headers: {},
      overridePath: false,
      repository,
      file: found?.file ?? 'the certificates',
    }
    if (!place?.insecure) return [entry]
    // As Podman has it: without looking at the certificate, and in plain HTTP where that fails.
    return [
      {...entry, address: `https://${host}`, skipVerify: true},
      {...entry, address: `http://${host}`},
    ]
  }
  const places = [
    ...(found?.mirrors ?? []).map(mirror => at(mirror, capabilitiesOf(mirror, reference))),
    at(found, ALL_CAPABILITIES),
  ]
  return (await Promise.all(places)).flat()
}

function unmoved(reference: Reference): {readonly host: string; readonly repository: undefined} {
  return {host: registryHostOf(reference), repository: undefined}
}

/** `host[:port]/path[:tag][@digest]` in its parts. */
function splitPlace(place: string, file: string): {readonly host: string; readonly repository: string} {
  const slash = place.indexOf('/')
  const host = place.slice(0, slash)
  const repository = place
    .slice(slash + 1)
    .replace(/@.*$/, '')
    .replace(/:.*$/, '')
  if (slash <= 0 || repository === '') {
    throw new CodedError('invalid-argument', `Cannot use ${file}: ${JSON.stringify(place)} is no repository`)
  }
  return {host: host === 'docker.io' ? 'registry-1.docker.io' : host, repository}
}

/** Contents are read by digest; only tags are resolved. */
function capabilitiesOf({pulls}: Mirror, {digest}: Reference): readonly Capability[] {
  if (pulls === 'all') return MIRROR_CAPABILITIES
  if (pulls === 'digest-only') return ['pull']
  return digest === undefined ? MIRROR_CAPABILITIES : []
}

interface Match {
  readonly registry: RegistryTable
  /** How much of the reference's text the prefix stands for. */
  readonly length: number
}

function longestMatch(tables: readonly RegistryTable[], text: string): Match | undefined {
  let best: Match | undefined
  for (const registry of tables) {
    const length = matchPrefix(text, registry.prefix)
    if (length !== undefined && length > (best?.length ?? 0)) best = {registry, length}
  }
  return best
}

/** How many characters of a reference a prefix matches: whole parts of it, or with `*.` all up to the end of its host. */
function matchPrefix(text: string, prefix: string): number | undefined {
  const written = prefix.startsWith('*.') ? prefix.slice(1) : prefix
  const at = written === prefix ? 0 : text.indexOf(written)
  const end = at + written.length
  if (!text.startsWith(written, at) || text.slice(0, at).includes('/')) return undefined
  return end === text.length || ':/@'.includes(text[end]!) ? end : undefined
}

/** The tables of all files; of those for one prefix the last file's counts. */
async function readTables({main, dropIns}: RegistriesConfFiles): Promise<RegistryTable[]> {
  const tables = new Map<string, RegistryTable>()
  const add = (file: string, text: string) => {
    const known = new Set<string>()
    for (const table of parseTables(file, text)) {
      // Of several tables for one prefix in one file Podman takes the first, where they agree.
      if (!known.has(table.prefix)) tables.set(table.prefix, table)
      known.add(table.prefix)
    }
    if (tables.size > MAX_PLACES) throw invalid(file, `there are more than ${MAX_PLACES} registries`)
  }
  for (const file of main) {
    const text = await readIfThere(file)
    if (text === undefined) continue
    add(file, text)
    break
  }
  for (const directory of dropIns) {
    for (const name of (await listIfThere(directory)).filter(each => each.endsWith('.conf')).sort()) {
      const file = join(directory, name)
      add(file, (await readIfThere(file)) ?? '')
    }
  }
  return [...tables.values()]
}

function parseTables(file: string, text: string): RegistryTable[] {
  let parsed: unknown
  try {
    parsed = parse(text)
  } catch (cause) {
    throw new CodedError('invalid-argument', `Cannot parse ${file}`, {cause})
  }
  return tablesOf(parsed, 'registry', file).map(fields => parseRegistry(fields, file))
}

function parseRegistry(fields: Readonly<Record<string, unknown>>, file: string): RegistryTable {
  const location = locationOf(fields, 'registry', file)
  const prefix = trimSlashes(stringOf(fields, 'registry.prefix', file)) || location
  if (!prefix) throw invalid(file, 'a "registry" has neither prefix nor location')
  if (location === undefined && !prefix.startsWith('*.')) {
    throw invalid(file, `the registry ${JSON.stringify(prefix)} has no location`)
  }
  const byDigest = flagOf(fields, 'registry.mirror-by-digest-only', file)
  return {
    prefix,
    location,
    insecure: flagOf(fields, 'registry.insecure', file),
    blocked: flagOf(fields, 'registry.blocked', file),
    mirrors: tablesOf(fields, 'mirror', file).map(mirror => parseMirror(mirror, byDigest, file)),
    file,
  }
}

function parseMirror(fields: Readonly<Record<string, unknown>>, byDigest: boolean, file: string): Mirror {
  const location = locationOf(fields, 'registry.mirror', file)
  if (location === undefined) throw invalid(file, 'a "registry.mirror" has no location')
  const pulls = stringOf(fields, 'registry.mirror.pull-from-mirror', file) || 'all'
  if (pulls !== 'all' && pulls !== 'digest-only' && pulls !== 'tag-only') {
    throw invalid(file, `"pull-from-mirror" is ${JSON.stringify(pulls)}`)
  }
  return {
    location,
    insecure: flagOf(fields, 'registry.mirror.insecure', file),
    pulls: byDigest ? 'digest-only' : pulls,
  }
}

function tablesOf(table: unknown, name: string, file: string): Record<string, unknown>[] {
  const found = isRecord(table) ? table[name] : undefined
  if (found === undefined) return []
  if (Array.isArray(found) && found.length <= MAX_PLACES && found.every(isRecord)) return found
  throw invalid(file, `"${name}" is no array of tables`)
}

function locationOf(
  fields: Readonly<Record<string, unknown>>,
  name: string,
  file: string,
): string | undefined {
  const location = trimSlashes(stringOf(fields, `${name}.location`, file))
  if (/^[a-z]+:\/\//i.test(location) || /[\s?#@]/.test(location)) {
    throw invalid(file, `"location" is ${JSON.stringify(location)}, and must be host[:port][/path]`)
  }
  return location || undefined
}

function stringOf(fields: Readonly<Record<string, unknown>>, name: string, file: string): string {
  const value = fields[name.slice(name.lastIndexOf('.') + 1)] ?? ''
  if (typeof value === 'string') return value
  throw invalid(file, `"${name}" is no string`)
}

function flagOf(fields: Readonly<Record<string, unknown>>, name: string, file: string): boolean {
  const value = fields[name.slice(name.lastIndexOf('.') + 1)] ?? false
  if (typeof value === 'boolean') return value
  throw invalid(file, `"${name}" is neither true nor false`)
}

function trimSlashes(text: string): string {
  return text.replace(/\/+$/, '')
}

async function readIfThere(file: string): Promise<string | undefined> {
  return readFile(file, 'utf8').catch(error => {
    if (hasCode(error, 'not-found')) return undefined
    throw new CodedError('failed-precondition', `Cannot read ${file}`, {cause: error})
  })
}

async function listIfThere(directory: string): Promise<string[]> {
  return readdir(directory).catch(error => {
    if (hasCode(error, 'not-found')) return []
    throw new CodedError('failed-precondition', `Cannot read ${directory}`, {cause: error})
  })
}

function invalid(file: string, problem: string): CodedError {
  return new CodedError('invalid-argument', `Cannot use ${file}: ${problem}`)
}
