// The containerd of a machine as a service: which files it has, and whether it comes back after a restart.

import {setTimeout as pause} from 'node:timers/promises'
import {type ConnectOptions, type ContainerdClient, connectContainerd} from '../containerd/client.ts'
import {Introspection} from '../containerd/proto/introspection_pb.ts'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {controlUnit, isSystemdHere, showUnit} from '../systemd/systemctl.ts'
import {followLinks} from './node-files.ts'

export interface ContainerdService extends ConnectOptions {
  readonly unit: string
  readonly program: string
  readonly configPath: string
}

export interface ContainerdNames extends ConnectOptions {
  readonly unit: string
  /** Its program and file; what the unit says where they are not named. */
  readonly program: string | undefined
  readonly configPath: string | undefined
}

const USUAL_CONFIG = '/etc/containerd/config.toml'

/** How long a containerd may take until it answers, once systemd has started it: those that do not tell systemd. */
const ANSWER_TIMEOUT_MS = 60_000
const ANSWER_INTERVAL_MS = 100

/** The program and the file of containerd: what is named, else what its unit says where there is one, else the usual ones. */
export async function findContainerdFiles(
  names: ContainerdNames,
): Promise<{readonly program: string; readonly configPath: string}> {
  const {program, configPath} = names
  if (!isSystemdHere()) return {program: program ?? 'containerd', configPath: configPath ?? USUAL_CONFIG}
  const {command} = await showUnit(names.unit, names)
  return {
    program: program ?? command[0] ?? 'containerd',
    configPath: configPath ?? configOf(command) ?? USUAL_CONFIG,
  }
}

/** Throws `failed-precondition` where systemd has no such unit. */
export async function findContainerd(names: ContainerdNames): Promise<ContainerdService> {
  if (!(await showUnit(names.unit, names)).isLoaded) {
    throw new CodedError(
      'failed-precondition',
      `Cannot restart containerd: systemd has no unit "${names.unit}"; name it with --containerd-unit`,
    )
  }
  const {program, configPath} = await findContainerdFiles(names)
  return {...names, program, configPath: await followLinks(configPath)}
}

/** What a command line of containerd says of its configuration. */
function configOf(command: readonly string[]): string | undefined {
  const index = command.findIndex(word => /^--?c(onfig)?(=|$)/.test(word))
  if (index === -1) return undefined
  const word = command[index]!
  return word.includes('=') ? word.slice(word.indexOf('=') + 1) : command[index + 1]
}

/**
 * Restarts containerd, and sees that it answers and that whatever worked in it before does now. Throws
 * `failed-precondition` where it does not.
 */
export async function restartContainerd(
  service: ContainerdService,
  brokenBefore: ReadonlySet<string>,
): Promise<void> {
  // What failed to start too often would not be started any more.
  await controlUnit('reset-failed', service.unit, service).catch(error => {
    if (!hasCode(error, 'failed-precondition')) throw error
  })
  await controlUnit('restart', service.unit, service)
  using client = await waitForContainerd(service)
  const broken = [...(await brokenPlugins(client, service))].filter(name => !brokenBefore.has(name))
  if (broken.length > 0) {
    throw new CodedError(
      'failed-precondition',
      `containerd started, but these of its plugins did not: ${broken.join(', ')}`,
    )
  }
}

async function waitForContainerd(service: ContainerdService): Promise<ContainerdClient> {
  const deadline = Date.now() + ANSWER_TIMEOUT_MS
  for (;;) {
    try {
      return await connectContainerd(service)
    } catch (error) {
      if (!hasCode(error, 'unavailable', 'failed-precondition')) throw error
      if (Date.now() > deadline || !(await showUnit(service.unit, service)).isActive) throw error
    }
    await pause(ANSWER_INTERVAL_MS, undefined, {signal: service.signal})
  }
}

/** The plugins that containerd could not start, by type and name. */
export async function brokenPlugins(client: ContainerdClient, options: CallOptions): Promise<Set<string>> {
  const call = {...options, doing: 'list plugins'}
  const {plugins} = await client.call(Introspection.method.plugins, {}, call)
  return new Set(plugins.filter(({initErr}) => initErr !== undefined).map(({type, id}) => `${type}.${id}`))
}
