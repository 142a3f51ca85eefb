// What has to be written for containerd so that it uses a snapshotter, and where: a file of its own that the configuration
// imports, with containerd 2.x; the configuration itself with 1.x, where an imported table takes the place of a whole plugin.

import {dirname, isAbsolute, join, matchesGlob} from 'node:path'
import {parse, stringify} from 'smol-toml'
import {CodedError} from '../errors/coded-error.ts'
import {isRecord} from '../oci/descriptor.ts'
import type {ContainerdSettings} from './containerd-settings.ts'
import {
  addToTomlArray,
  editToml,
  rawTomlValue,
  removeFromTomlArray,
  type TomlEdit,
  type TomlPath,
} from './edit-toml.ts'

/** What containerd is to use. */
export interface SnapshotterWish {
  /** The snapshotter's name in containerd, its socket and its directory. */
  readonly snapshotter: string
  readonly address: string
  readonly root: string
  /** The runtime class whose pods use it; undefined for all pods. */
  readonly runtimeClass?: string | undefined
}

/** `plugin`: containerd has the snapshotter, and pods do not use it yet; `pods`: they do. */
export type Stage = 'plugin' | 'pods'

/** containerd's configuration as it is without us. */
export interface ConfigBase {
  readonly settings: ContainerdSettings
  readonly configPath: string
  /** The text of that file; undefined where there is none. */
  readonly text: string | undefined
}

/** A file, and what is to be in it; undefined for none. */
export interface PlannedFile {
  readonly path: string
  readonly text: string | undefined
}

/** The last of its directory, so that what it says counts. */
const DROP_IN = '99-ctr-remote.toml'
const CRI_OF_1 = 'io.containerd.grpc.v1.cri'
const IMPORTS = ['imports']

/** The file of our own, where containerd can have one. */
export function dropInPath(configPath: string): string {
  return join(dirname(configPath), 'conf.d', DROP_IN)
}

/**
 * The files of a stage; the same for every run. `withImport` says whether the configuration must name our file. Throws
 * `failed-precondition` for what cannot be written.
 */
export function planContainerdConfig(
  base: ConfigBase,
  wish: SnapshotterWish,
  stage: Stage,
  withImport = needsImport(base) === 'yes',
): PlannedFile[] {
  const {settings, configPath, text} = base
  if (settings.version < 3) {
    const edited = editToml(text ?? `version = ${settings.version}\n`, editsOf1(base, wish, stage))
    return [{path: configPath, text: edited}]
  }
  const path = dropInPath(configPath)
  const dropIn = {path, text: dropInText(base, wish, stage)}
  if (!withImport) return [{path: configPath, text}, dropIn]
  const main = text ?? `version = ${settings.version}\n`
  return [{path: configPath, text: addToTomlArray(main, IMPORTS, path)}, dropIn]
}

/** Whether the configuration must be told to import our file. */
export function needsImport({settings, configPath, text}: ConfigBase): 'yes' | 'no' | 'perhaps' {
  if (settings.version < 3) return 'no'
  const path = dropInPath(configPath)
  const covers = (pattern: unknown) =>
    typeof pattern === 'string' &&
    matchesGlob(path, isAbsolute(pattern) ? pattern : join(dirname(configPath), pattern))
  const own = text === undefined ? undefined : parse(text).imports
  if (Array.isArray(own)) return own.some(covers) ? 'no' : 'yes'
  // Since 2.2 there are imports where none are written. Ours, of an earlier run, is not one of them.
  if (!settings.imports.some(pattern => pattern !== path && covers(pattern))) return 'yes'
  return text === undefined ? 'no' : 'perhaps'
}

/**
 * What somebody has changed since, without what was planned: `now` is its text, `before` what it was at first, and `written`
 * what was planned. Throws as `editToml`.
 */
export function withoutPlanned(now: string, before: string, written: string): string {
  const [first, planned] = [parse(before), parse(written)]
  const [a, b] = [leavesOf(first), leavesOf(planned)]
  const changed = [...b.keys()]
    .filter(key => a.get(key) !== b.get(key))
    .map(key => JSON.parse(key) as TomlPath)
  const keys = changed.filter(([name]) => name !== 'imports')
  const rest = editToml(
    now,
    keys.map(path => ({path, value: rawTomlValue(before, path)})),
  )
  if (keys.length === changed.length) return rest
  // Others may have added to these.
  const wereThere = new Set(Array.isArray(first.imports) ? first.imports : [])
  const added = (planned.imports as readonly string[]).filter(path => !wereThere.has(path))
  const fewer = added.reduce((text, path) => removeFromTomlArray(text, IMPORTS, path), rest)
  const isEmptied = first.imports === undefined && /^\[\s*\]$/.test(rawTomlValue(fewer, IMPORTS) ?? '')
  return isEmptied ? editToml(fewer, [{path: IMPORTS, value: undefined}]) : fewer
}

/** The version of a configuration's text; `otherwise` where there is no text. */
function versionOf(text: string | undefined, otherwise: number): number {
  if (text === undefined) return otherwise
  return Number(rawTomlValue(text, ['version']) ?? 1)
}

// --- containerd 1.x ----------------------------------------------------------------------------------------------------

function criOf1(version: number): TomlPath {
  return ['plugins', version < 2 ? 'cri' : CRI_OF_1, 'containerd']
}

function editsOf1({settings, text}: ConfigBase, wish: SnapshotterWish, stage: Stage): TomlEdit[] {
  const {snapshotter, address, runtimeClass} = wish
  const containerd = criOf1(versionOf(text, settings.version))
  const plugin = [
    {path: ['proxy_plugins', snapshotter, 'type'], value: '"snapshot"'},
    {path: ['proxy_plugins', snapshotter, 'address'], value: JSON.stringify(address)},
  ]
  if (stage === 'plugin' || !settings.cri) return plugin
  const name = JSON.stringify(snapshotter)
  const annotations = {path: [...containerd, 'disable_snapshot_annotations'], value: 'false'}
  if (runtimeClass === undefined) {
    return [...plugin, {path: [...containerd, 'snapshotter'], value: name}, annotations]
  }
  const table = runtimeTable(settings.cri, runtimeClass)
  const path = [...containerd, 'runtimes', runtimeClass]
  return [...plugin, annotations, ...flatten(table, path), {path: [...path, 'snapshotter'], value: name}]
}

function flatten(table: Readonly<Record<string, unknown>>, path: TomlPath): TomlEdit[] {
  return Object.entries(table).flatMap(([key, value]) =>
    isRecord(value)
      ? flatten(value, [...path, key])
      : [{path: [...path, key], value: stringify({x: value}).trim().replace(/^x = /, '')}],
  )
}

// --- containerd 2.x ----------------------------------------------------------------------------------------------------

/** In the version of the file that imports it: containerd reads all of them as the last one says. */
function dropInText({settings, text}: ConfigBase, wish: SnapshotterWish, stage: Stage): string {
  const {snapshotter, address, root} = wish
  const version = versionOf(text, settings.version)
  const exports = {root, enable_remote_snapshot_annotations: 'true'}
  const config = {
    ...(version < 2 ? {} : {version}),
    proxy_plugins: {[snapshotter]: {type: 'snapshot', address, exports}},
    ...(stage === 'plugin' ? {} : {plugins: pluginsOf2(settings, wish, version)}),
  }
  return `# Written by "ctr-remote node enable"; "ctr-remote node disable" takes it away.\n${stringify(config)}`
}

function pluginsOf2(
  {cri, unpacksInto = []}: ContainerdSettings,
  {snapshotter, runtimeClass}: SnapshotterWish,
  version: number,
): Readonly<Record<string, unknown>> {
  // Naming one takes the default away.
  const others = unpacksInto.filter(name => name !== snapshotter)
  const into = [...(others.length === 0 ? ['overlayfs'] : others), snapshotter]
  const transfer = {unpack_config: into.map(name => ({platform: 'linux', snapshotter: name}))}
  const plugins = {'io.containerd.transfer.v1.local': transfer}
  if (!cri) return plugins
  const annotations = {disable_snapshot_annotations: false}
  const images = runtimeClass === undefined ? {snapshotter, ...annotations} : annotations
  const runtimes =
    runtimeClass === undefined
      ? {}
      : {runtimes: {[runtimeClass]: {...runtimeTable(cri, runtimeClass), snapshotter}}}
  if (version < 3)
    return {...plugins, [version < 2 ? 'cri' : CRI_OF_1]: {containerd: {...images, ...runtimes}}}
  return {
    ...plugins,
    'io.containerd.cri.v1.images': images,
    ...(runtimeClass === undefined ? {} : {'io.containerd.cri.v1.runtime': {containerd: runtimes}}),
  }
}

// --- Runtime classes ---------------------------------------------------------------------------------------------------

/** What a class is made of: as it is, or as the one of pods that name none. */
function runtimeTable(
  {runtimeTables, defaultRuntime}: NonNullable<ContainerdSettings['cri']>,
  name: string,
): Readonly<Record<string, unknown>> {
  const table = runtimeTables[name] ?? runtimeTables[defaultRuntime]
  if (!isRecord(table) || !('snapshotter' in table)) {
    throw new CodedError(
      'unsupported',
      `Cannot use the snapshotter for the runtime class "${name}" alone: this containerd has one snapshotter for all of them; it takes containerd 1.7 or newer`,
    )
  }
  const {runtime_type, options} = table
  return {runtime_type, ...(isRecord(options) ? {options: withoutDefaults(options)} : {})}
}

function withoutDefaults(table: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return Object.fromEntries(
    Object.entries(table).filter(([, value]) => value !== '' && value !== 0 && value !== false),
  )
}

// --- What containerd makes of it ---------------------------------------------------------------------------------------

/**
 * What is different in two dumps besides what was wished for, by keys: a file that another one hides, or that takes the place of
 * more than it says.
 */
export function unwishedChanges(before: unknown, after: unknown, wish: SnapshotterWish): string[] {
  const [a, b] = [leavesOf(before), leavesOf(after)]
  const keys = new Set([...a.keys(), ...b.keys()])
  return [...keys]
    .filter(key => a.get(key) !== b.get(key) && !isWished(JSON.parse(key), wish))
    .map(key => JSON.parse(key).join('.'))
}

function isWished(path: TomlPath, {snapshotter, runtimeClass}: SnapshotterWish): boolean {
  const [first, second, ...rest] = path
  if (first === 'imports') return true
  if (first === 'proxy_plugins') return second === snapshotter
  if (first !== 'plugins' || second === undefined) return false
  if (second === 'io.containerd.transfer.v1.local') return rest[0] === 'unpack_config'
  if (!second.includes('cri')) return false
  if (runtimeClass !== undefined && rest.includes('runtimes')) return rest.includes(runtimeClass)
  return rest.at(-1) === 'snapshotter' || rest.at(-1) === 'disable_snapshot_annotations'
}

function leavesOf(
  value: unknown,
  path: TomlPath = [],
  leaves = new Map<string, string>(),
): Map<string, string> {
  if (!isRecord(value)) leaves.set(JSON.stringify(path), stringify({x: value}))
  else for (const [key, part] of Object.entries(value)) leavesOf(part, [...path, key], leaves)
  return leaves
}

/** Says why a stage is not what containerd makes of its files; undefined where it is. */
export function whyNotReached(
  settings: ContainerdSettings,
  {snapshotter, address, runtimeClass}: SnapshotterWish,
  stage: Stage,
): string | undefined {
  const {plugin, cri} = settings
  if (plugin?.address !== address) return `it has no proxy plugin "${snapshotter}" at "${address}"`
  if (stage === 'plugin' || !cri) return undefined
  const used = runtimeClass === undefined ? cri.snapshotter : cri.runtimes[runtimeClass]
  if (used !== snapshotter) return `pods use the snapshotter "${used ?? cri.snapshotter}"`
  return cri.annotations ? undefined : 'disable_snapshot_annotations is not false'
}
