// Networking by CNI plugins (CNI spec 1.0, "Section 2: Execution Protocol"): a network namespace, and the plugins of
// the first configuration run in order to add it to a network and in reverse to remove it.

import {mkdir, open, readdir, readFile, rm} from 'node:fs/promises'
import {basename, join} from 'node:path'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import {runCommand, runCommandOrThrow} from '../io/run-command.ts'
import {replaceFile} from '../io/staged-file.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {isRecord} from '../oci/descriptor.ts'
import type {CniOptions} from './workload.ts'

/** A network namespace that plugins have set up, to be removed with `removeNetworks`. */
export interface Network {
  /** The namespace's file. */
  readonly path: string
}

/** Where `ip netns` looks too, so that people can inspect a running sandbox. */
const NETNS_DIRECTORY = '/var/run/netns'
const INTERFACE = 'eth0'
/** Largest configuration read, bytes. */
const MAX_CONFIG_SIZE = 1024 * 1024

type JsonObject = Readonly<Record<string, unknown>>

/** A network configuration list; a single plugin's file is a list of one. */
interface NetworkConfig {
  readonly name: string
  readonly cniVersion: string
  readonly plugins: readonly JsonObject[]
}

/** What `removeNetworks` needs to know after a crash. */
interface NetworkState {
  readonly id: string
  readonly namespace: string
  readonly pluginDir: string
  readonly config: NetworkConfig
  /** What the last plugin answered to ADD, once it has: DEL must be given it (CNI spec, "prevResult"). */
  readonly result?: unknown
}

/**
 * Makes a namespace named `id` and adds it to the network. `directory` is the caller's; what was set up is written there
 * first, so that `removeNetworks(directory)` undoes it whatever happens. Throws `failed-precondition`.
 */
export async function addNetwork(
  directory: string,
  id: string,
  cni: CniOptions,
  options: CallOptions = {},
): Promise<Network> {
  const config = await readFirstConfig(cni.confDir)
  const namespace = join(NETNS_DIRECTORY, id)
  const state: NetworkState = {id, namespace, pluginDir: cni.pluginDir, config}
  await replaceFile(stateFile(directory), JSON.stringify(state), {mode: 0o600, mayBeLost: true})
  await mkdir(NETNS_DIRECTORY, {recursive: true})
  await (await open(namespace, 'wx', 0o444)).close()
  // unshare(1) binds its new namespace over the file, and so keeps it alive after the program's end.
  await runCommandOrThrow('unshare', [`--net=${namespace}`, 'true'], options)
  await raiseLoopback(state, options)
  let result: unknown
  for (const plugin of config.plugins) result = await runPlugin('ADD', state, plugin, result, options)
  await replaceFile(stateFile(directory), JSON.stringify({...state, result}), {mode: 0o600, mayBeLost: true})
  return {path: namespace}
}

/**
 * Undoes `addNetwork`. A plugin that fails to clean up after itself cannot be helped, and keeps neither the others nor the
 * namespace alive. Not abortable.
 */
export async function removeNetworks(directory: string): Promise<void> {
  const text = await readFile(stateFile(directory), 'utf8').catch(cause => {
    if (hasCode(cause, 'not-found')) return undefined
    throw cause
  })
  if (text === undefined) return
  const state = JSON.parse(text) as NetworkState
  for (const plugin of [...state.config.plugins].reverse()) {
    await runPlugin('DEL', state, plugin, state.result).catch(() => {})
  }
  await runCommand('umount', ['-i', '-l', '--', state.namespace])
  await rm(state.namespace, {force: true})
  await rm(stateFile(directory), {force: true})
}

function stateFile(directory: string): string {
  return join(directory, 'network.json')
}

async function readFirstConfig(directory: string): Promise<NetworkConfig> {
  const names = await readdir(directory).catch(() => [])
  const name = names.filter(candidate => /\.(conflist|conf|json)$/.test(candidate)).sort()[0]
  if (name === undefined) {
    throw new CodedError(
      'failed-precondition',
      `Cannot set up a network: there is no CNI configuration (*.conflist, *.conf, *.json) in ${JSON.stringify(directory)}`,
    )
  }
  return parseConfig(await readFile(join(directory, name)), join(directory, name))
}

function parseConfig(bytes: Uint8Array, where: string): NetworkConfig {
  const invalid = (problem: string, cause?: unknown) =>
    new CodedError(
      'invalid-argument',
      `Cannot use the CNI configuration ${JSON.stringify(where)}: ${problem}`,
      {cause},
    )
  if (bytes.length > MAX_CONFIG_SIZE) throw invalid(`it exceeds ${MAX_CONFIG_SIZE} bytes`)
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder().decode(bytes))
  } catch (cause) {
    throw invalid('it is no JSON', cause)
  }
  if (!isRecord(value) || typeof value.name !== 'string') throw invalid('it has no "name"')
  const plugins = Array.isArray(value.plugins) ? value.plugins : [value]
  if (plugins.length === 0 || !plugins.every(plugin => isRecord(plugin) && isPluginType(plugin.type))) {
    throw invalid('a plugin has no valid "type"')
  }
  return {
    name: value.name,
    cniVersion: typeof value.cniVersion === 'string' ? value.cniVersion : '0.1.0',
    plugins: plugins as JsonObject[],
  }
}

/** A plugin's type is the name of a program in the plugin directory, and must not lead out of it. */
function isPluginType(type: unknown): type is string {
  return typeof type === 'string' && type !== '' && type === basename(type) && !type.startsWith('.')
}

/** The loopback interface of a new namespace is down; the plugin of that name raises it. */
async function raiseLoopback(state: NetworkState, options: CallOptions): Promise<void> {
  const config = {name: 'loopback', cniVersion: state.config.cniVersion, plugins: []}
  await runPlugin('ADD', {...state, config}, {type: 'loopback'}, undefined, options, 'lo')
}

async function runPlugin(
  command: 'ADD' | 'DEL',
  state: NetworkState,
  plugin: JsonObject,
  previous: unknown,
  options: CallOptions = {},
  interfaceName = INTERFACE,
): Promise<unknown> {
  const {name, cniVersion} = state.config
  const input = {...plugin, name, cniVersion, ...(previous === undefined ? {} : {prevResult: previous})}
  const {exitCode, stdout, stderr} = await runCommand(join(state.pluginDir, String(plugin.type)), [], {
    input: JSON.stringify(input),
    env: {
      CNI_COMMAND: command,
      CNI_CONTAINERID: state.id,
      CNI_NETNS: state.namespace,
      CNI_IFNAME: interfaceName,
      CNI_PATH: state.pluginDir,
    },
    signal: options.signal,
  })
  const answer = parseAnswer(stdout)
  if (exitCode === 0) return answer
  const reason = (isRecord(answer) && typeof answer.msg === 'string' ? answer.msg : stderr.trim()).slice(
    0,
    2000,
  )
  throw new CodedError(
    'failed-precondition',
    `Cannot set up a network: CNI plugin ${JSON.stringify(plugin.type)} failed to ${command}: ${reason}`,
  )
}

function parseAnswer(stdout: string): unknown {
  try {
    return stdout.trim() === '' ? undefined : JSON.parse(stdout)
  } catch {
    return undefined
  }
}
