// How a container of `run` differs from the sandbox that a workload is profiled in.

import {lstatSync, readdirSync, readFileSync} from 'node:fs'
import {join} from 'node:path'
import type {RuntimeSpec, SpecDevice} from '../runc/runtime-spec.ts'

export interface RunSpecOptions {
  readonly namespace: string
  readonly id: string
  readonly readOnly: boolean
  readonly privileged: boolean
}

/** All capabilities of Linux 5.9 and later, by number (capabilities(7)). */
const ALL_CAPABILITIES = [
  ...['CHOWN', 'DAC_OVERRIDE', 'DAC_READ_SEARCH', 'FOWNER', 'FSETID', 'KILL', 'SETGID', 'SETUID', 'SETPCAP'],
  ...[
    'LINUX_IMMUTABLE',
    'NET_BIND_SERVICE',
    'NET_BROADCAST',
    'NET_ADMIN',
    'NET_RAW',
    'IPC_LOCK',
    'IPC_OWNER',
  ],
  ...[
    'SYS_MODULE',
    'SYS_RAWIO',
    'SYS_CHROOT',
    'SYS_PTRACE',
    'SYS_PACCT',
    'SYS_ADMIN',
    'SYS_BOOT',
    'SYS_NICE',
  ],
  ...[
    'SYS_RESOURCE',
    'SYS_TIME',
    'SYS_TTY_CONFIG',
    'MKNOD',
    'LEASE',
    'AUDIT_WRITE',
    'AUDIT_CONTROL',
    'SETFCAP',
  ],
  ...['MAC_OVERRIDE', 'MAC_ADMIN', 'SYSLOG', 'WAKE_ALARM', 'BLOCK_SUSPEND', 'AUDIT_READ', 'PERFMON', 'BPF'],
  'CHECKPOINT_RESTORE',
].map(name => `CAP_${name}`)

/** What a container has of its own below /dev. */
const OWN_DEVICES = new Set(['pts', 'shm', 'fd', 'mqueue', '.lxc', '.lxd-mounts', '.udev', 'console', 'tty'])

/** `sandbox` as a container of containerd: its cgroup by namespace and id, and what the flags change. */
export function runSpecFrom(sandbox: RuntimeSpec, options: RunSpecOptions): RuntimeSpec {
  const spec = {
    ...sandbox,
    root: {...sandbox.root, readonly: options.readOnly},
    linux: {...sandbox.linux, cgroupsPath: `/${options.namespace}/${options.id}`},
  }
  return options.privileged ? withEveryPrivilege(spec) : spec
}

/** As `ctr run --privileged`: all our capabilities, the host's devices, nothing masked or read-only in /proc and /sys. */
function withEveryPrivilege(spec: RuntimeSpec): RuntimeSpec {
  const all = ownCapabilities()
  return {
    ...spec,
    process: {...spec.process, capabilities: {bounding: all, effective: all, permitted: all}},
    mounts: spec.mounts.map(mount =>
      mount.type === 'sysfs' || mount.type === 'cgroup'
        ? {...mount, options: mount.options.map(option => (option === 'ro' ? 'rw' : option))}
        : mount,
    ),
    linux: {
      ...spec.linux,
      resources: {...spec.linux.resources, devices: [{allow: true, access: 'rwm'}]},
      devices: [...(spec.linux.devices ?? []), ...devicesBelow('/dev')],
      maskedPaths: [],
      readonlyPaths: [],
    },
  }
}

/** What this process may do; in a container of its own that is less than everything, and asking for more would fail. */
function ownCapabilities(): string[] {
  const mask = /^CapEff:\s*([0-9a-f]+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0'
  const bits = BigInt(`0x${mask}`)
  return ALL_CAPABILITIES.filter((_, number) => (bits >> BigInt(number)) & 1n)
}

function devicesBelow(directory: string): SpecDevice[] {
  return readdirSync(directory).flatMap(name => {
    const path = join(directory, name)
    if (OWN_DEVICES.has(name)) return []
    const status = lstatSync(path)
    if (status.isDirectory()) return devicesBelow(path)
    if (!status.isCharacterDevice() && !status.isBlockDevice()) return []
    const type = status.isBlockDevice() ? 'b' : 'c'
    const {major, minor} = splitDevice(status.rdev)
    return [{path, type, major, minor, fileMode: status.mode & 0o7777, uid: status.uid, gid: status.gid}]
  })
}

/** The encoding of makedev(3) in glibc; device numbers of Linux fit in its low 32 bits. */
function splitDevice(device: number): {readonly major: number; readonly minor: number} {
  return {major: (device >>> 8) & 0xfff, minor: (device & 0xff) | ((device >>> 12) & 0xfff00)}
}
