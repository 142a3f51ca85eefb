// The OCI runtime-spec document (config.json) for a workload: what containerd's default Unix spec plus an image config
// give, so that a workload sees in the sandbox what it will see in production.

import {CodedError} from '../errors/coded-error.ts'
import type {RunConfig} from '../oci/manifest.ts'
import type {ProcessUser} from './image-user.ts'
import type {WorkloadOptions} from './workload.ts'

export interface SpecMount {
  readonly destination: string
  readonly type: string
  readonly source: string
  readonly options: readonly string[]
}

export interface SpecHook {
  readonly path: string
  readonly args?: readonly string[] | undefined
  readonly env?: readonly string[] | undefined
  readonly timeout?: number | undefined
}

export type HookStage =
  | 'prestart'
  | 'createRuntime'
  | 'createContainer'
  | 'startContainer'
  | 'poststart'
  | 'poststop'

export interface SpecDevice {
  readonly path: string
  readonly type: string
  readonly major: number
  readonly minor: number
  readonly fileMode?: number
  readonly uid?: number
  readonly gid?: number
}

export interface DeviceRule {
  readonly allow: boolean
  readonly type?: string
  readonly major?: number
  readonly minor?: number
  readonly access: string
}

/** The parts of config.json (runtime-spec config.md, config-linux.md) that we write. */
export interface RuntimeSpec {
  readonly ociVersion: string
  readonly process: {
    readonly terminal: boolean
    readonly consoleSize?: {readonly height: number; readonly width: number}
    readonly user: ProcessUser
    readonly args: readonly string[]
    readonly env: readonly string[]
    readonly cwd: string
    readonly capabilities: Readonly<Record<'bounding' | 'effective' | 'permitted', readonly string[]>>
    readonly rlimits: ReadonlyArray<{readonly type: string; readonly hard: number; readonly soft: number}>
    readonly noNewPrivileges: boolean
  }
  readonly root: {readonly path: string; readonly readonly: boolean}
  readonly hostname?: string
  readonly mounts: readonly SpecMount[]
  readonly hooks?: Readonly<Partial<Record<HookStage, readonly SpecHook[]>>>
  readonly linux: {
    readonly cgroupsPath: string
    readonly namespaces: ReadonlyArray<{readonly type: string; readonly path?: string}>
    readonly resources: {readonly devices: readonly DeviceRule[]}
    readonly devices?: readonly SpecDevice[]
    readonly maskedPaths: readonly string[]
    readonly readonlyPaths: readonly string[]
  }
}

/** The network namespace of a workload: the host's, a fresh one with only loopback, or one that CNI has set up. */
export type NetworkNamespace = 'host' | 'private' | {readonly path: string}

/** What devices from CDI add to a spec. */
export interface DeviceEdits {
  readonly env: readonly string[]
  readonly mounts: readonly SpecMount[]
  readonly devices: readonly SpecDevice[]
  readonly hooks: ReadonlyArray<{readonly stage: HookStage; readonly hook: SpecHook}>
  readonly additionalGids: readonly number[]
}

/** Everything about the sandbox that neither the image nor the user decides. */
export interface SandboxFacts {
  readonly id: string
  /** Absolute path of the mounted root file system. */
  readonly rootfs: string
  readonly user: ProcessUser
  readonly network: NetworkNamespace
  /** Generated or host files that are bound over the image's: `/etc/hosts`, `/etc/resolv.conf`. */
  readonly files: readonly SpecMount[]
  readonly edits?: DeviceEdits | undefined
}

const DEFAULT_PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** The capabilities that containerd and Docker leave to root in a container. */
const CAPABILITIES = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FSETID',
  'CAP_FOWNER',
  'CAP_MKNOD',
  'CAP_NET_RAW',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_SETFCAP',
  'CAP_SETPCAP',
  'CAP_NET_BIND_SERVICE',
  'CAP_SYS_CHROOT',
  'CAP_KILL',
  'CAP_AUDIT_WRITE',
]

const DEFAULT_MOUNTS: readonly SpecMount[] = [
  {destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev']},
  {
    destination: '/dev',
    type: 'tmpfs',
    source: 'tmpfs',
    options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
  },
  {
    destination: '/dev/pts',
    type: 'devpts',
    source: 'devpts',
    options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
  },
  {
    destination: '/dev/shm',
    type: 'tmpfs',
    source: 'shm',
    options: ['nosuid', 'noexec', 'nodev', 'mode=1777', 'size=65536k'],
  },
  {destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: ['nosuid', 'noexec', 'nodev']},
  {destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', 'ro']},
  {
    destination: '/run',
    type: 'tmpfs',
    source: 'tmpfs',
    options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
  },
]

const MASKED_PATHS = [
  '/proc/acpi',
  '/proc/asound',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/sys/firmware',
  '/sys/devices/virtual/powercap',
]

const READONLY_PATHS = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger']

/** Nothing but these: null, zero, full, random, urandom, tty, console, pseudo terminals; and mknod of anything. */
const DEVICE_RULES: readonly DeviceRule[] = [
  {allow: false, access: 'rwm'},
  {allow: true, type: 'c', access: 'm'},
  {allow: true, type: 'b', access: 'm'},
  ...[
    [1, 3],
    [1, 5],
    [1, 7],
    [1, 8],
    [1, 9],
    [5, 0],
    [5, 1],
    [5, 2],
  ].map(([major, minor]) => ({allow: true, type: 'c', major: major!, minor: minor!, access: 'rwm'})),
  {allow: true, type: 'c', major: 136, access: 'rwm'},
]

/** Builds config.json. Throws `invalid-argument` when neither the image nor the options say what to run. */
export function buildRuntimeSpec(
  image: RunConfig,
  workload: WorkloadOptions,
  facts: SandboxFacts,
): RuntimeSpec {
  const terminal = workload.terminal ?? false
  const {terminalSize: size} = workload
  const {edits, user} = facts
  return {
    ociVersion: '1.0.2',
    process: {
      terminal,
      ...(terminal && size ? {consoleSize: {height: size.rows, width: size.columns}} : {}),
      user: {
        ...user,
        additionalGids: [...new Set([...user.additionalGids, ...(edits?.additionalGids ?? [])])],
      },
      args: commandOf(image, workload),
      env: mergeEnv([
        DEFAULT_PATH,
        ...(terminal ? ['TERM=xterm'] : []),
        ...(image.Env ?? []),
        ...(edits?.env ?? []),
        ...(workload.env ?? []),
      ]),
      cwd: cwdOf(image, workload),
      capabilities: {bounding: CAPABILITIES, effective: CAPABILITIES, permitted: CAPABILITIES},
      rlimits: [{type: 'RLIMIT_NOFILE', hard: 1024, soft: 1024}],
      noNewPrivileges: true,
    },
    root: {path: facts.rootfs, readonly: false},
    ...(facts.network === 'host' ? {} : {hostname: facts.id}),
    mounts: [...DEFAULT_MOUNTS, ...facts.files, ...(edits?.mounts ?? []), ...(workload.mounts ?? [])],
    ...(edits && edits.hooks.length > 0 ? {hooks: groupHooks(edits)} : {}),
    linux: {
      // No parent directory, so that nothing of ours stays in the cgroup file systems.
      cgroupsPath: `/${facts.id}`,
      namespaces: namespacesFor(facts.network),
      resources: {devices: [...DEVICE_RULES, ...(edits?.devices ?? []).map(ruleFor)]},
      ...(edits && edits.devices.length > 0 ? {devices: edits.devices} : {}),
      maskedPaths: MASKED_PATHS,
      readonlyPaths: READONLY_PATHS,
    },
  }
}

/** Entrypoint and command, each overridden on its own. */
export function commandOf(
  image: RunConfig,
  workload: Pick<WorkloadOptions, 'entrypoint' | 'args'>,
): string[] {
  const command = [...(workload.entrypoint ?? image.Entrypoint ?? []), ...(workload.args ?? image.Cmd ?? [])]
  if (command.length === 0 || command[0] === '') {
    throw new CodedError(
      'invalid-argument',
      'Cannot run the image: it has neither an entrypoint nor a command; say what to run with --entrypoint or --args',
    )
  }
  return command
}

/** Absolute. */
export function cwdOf(image: RunConfig, workload: Pick<WorkloadOptions, 'cwd'>): string {
  const cwd = workload.cwd || image.WorkingDir || '/'
  if (!cwd.startsWith('/')) {
    throw new CodedError(
      'invalid-argument',
      `Cannot use the working directory ${JSON.stringify(cwd)}: it must be an absolute path`,
    )
  }
  return cwd
}

/** Later values replace earlier ones in place, so that the order stays the image's; a bare name removes. */
function mergeEnv(entries: readonly string[]): string[] {
  const variables = new Map<string, string>()
  for (const entry of entries) {
    const equals = entry.indexOf('=')
    if (equals < 0) variables.delete(entry)
    else if (equals > 0) variables.set(entry.slice(0, equals), entry)
  }
  return [...variables.values()]
}

function namespacesFor(network: NetworkNamespace): Array<{type: string; path?: string}> {
  const own = [{type: 'pid'}, {type: 'ipc'}, {type: 'uts'}, {type: 'mount'}]
  if (network === 'host') return own
  return [...own, network === 'private' ? {type: 'network'} : {type: 'network', path: network.path}]
}

function ruleFor(device: SpecDevice): DeviceRule {
  return {allow: true, type: device.type, major: device.major, minor: device.minor, access: 'rwm'}
}

function groupHooks(edits: DeviceEdits): Partial<Record<HookStage, SpecHook[]>> {
  const stages: Partial<Record<HookStage, SpecHook[]>> = {}
  for (const {stage, hook} of edits.hooks) (stages[stage] ??= []).push(hook)
  return stages
}
