// A machine of its own, with systemd and containerd: a Debian that scripts/make-machine keeps, booted by systemd-nspawn on an
// overlay. It has this machine's kernel and network; everything that it does to its disk goes with it.

import {type ChildProcess, execFile, spawn} from 'node:child_process'
import {once} from 'node:events'
import {existsSync, openSync, readFileSync} from 'node:fs'
import {mkdir, mkdtemp, readFile, rm, writeFile} from 'node:fs/promises'
import {homedir, tmpdir} from 'node:os'
import {basename, dirname, join} from 'node:path'
import {promisify} from 'node:util'
import {newerPrograms} from './newer-programs.ts'

const run = promisify(execFile)

const CACHE = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'ctr-remote')
const BASE = join(CACHE, 'machine')

/** Whether there is one to boot. */
export function hasMachine(): boolean {
  return existsSync(join(BASE, 'etc/debian_version'))
}

/** Why none boots here, as setup found; undefined when it did not try. */
export function whyNoMachine(): string | undefined {
  try {
    return readFileSync(`${BASE}.unavailable`, 'utf8').trim()
  } catch {
    return undefined
  }
}

export interface CommandResult {
  readonly exitCode: number
  readonly stdout: string
  readonly stderr: string
}

export interface Machine extends AsyncDisposable {
  /** Where this machine sees a path of that one, while it runs. */
  path(inside: string): string
  read(inside: string): Promise<string>
  write(inside: string, text: string): Promise<void>
  /** Runs a program in it to its end. */
  run(...argv: readonly string[]): Promise<CommandResult>
  /** As `run`, and throws unless it ends with 0; resolves to its output. */
  do(...argv: readonly string[]): Promise<string>
  /** Turns it off, and on again. */
  reboot(): Promise<void>
}

export interface MachineOptions {
  /** The newer containerd in place of the distribution's. */
  readonly newerContainerd?: boolean
  /** Directories whose contents are over those of its disk. */
  readonly layers?: readonly string[]
}

/** What containers and their layers are kept in: overlayfs cannot be on another overlay. */
const PLAIN_DIRECTORIES = ['/var/lib/containerd', '/var/lib/containerd-stargz-grpc']

/** The newer containerd in its own place, with the shim and runc that belong to it. */
const NEWER_UNIT = `[Service]
ExecStart=
ExecStart=${newerPrograms('containerd')}/containerd
Environment=PATH=${newerPrograms('containerd')}:/usr/sbin:/usr/bin:/sbin:/bin
`

/** Boots a machine and waits until everything in it has started. Needs root. */
export async function startMachine(options: MachineOptions = {}): Promise<Machine> {
  const directory = await mkdtemp(join(tmpdir(), 'ctr-remote-machine-'))
  const [root, upper, work] = ['root', 'upper', 'work'].map(name => join(directory, name)) as [
    string,
    string,
    string,
  ]
  for (const path of [root, upper, work]) await mkdir(path)
  for (const path of PLAIN_DIRECTORIES) await mkdir(join(directory, basename(path)))
  const lower = [...(options.layers ?? []), BASE].join(':')
  const overlay = `lowerdir=${lower},upperdir=${upper},workdir=${work}`
  await run('mount', ['-t', 'overlay', '-o', overlay, 'machine', root])
  if (options.newerContainerd) {
    const unit = join(root, 'etc/systemd/system/containerd.service.d/newer.conf')
    await mkdir(dirname(unit), {recursive: true})
    await writeFile(unit, NEWER_UNIT)
  }
  const log = join(directory, 'log')
  const booted = {nspawn: await boot(directory, options), init: 0}

  /** Its first process, once everything has started. */
  async function untilBooted(): Promise<void> {
    for (;;) {
      booted.init = await initOf(booted.nspawn)
      if (booted.init > 0) {
        const {stdout} = await inside('systemctl', 'is-system-running', '--wait')
        if (/running|degraded/.test(stdout)) return
      }
      if (isGone(booted.nspawn)) throw new Error(`The machine did not start: ${await readFile(log, 'utf8')}`)
      // Polling: nobody tells when systemd can be asked.
      await new Promise(resolve => setTimeout(resolve, 50))
    }
  }

  async function inside(...argv: readonly string[]): Promise<CommandResult> {
    const enter = ['-t', `${booted.init}`, '-m', '-u', '-i', '-p', '--']
    const env = ['-i', 'HOME=/root', 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin']
    try {
      const {stdout, stderr} = await run('nsenter', [...enter, 'env', ...env, ...argv], {
        maxBuffer: 16 * 1024 * 1024,
      })
      return {exitCode: 0, stdout, stderr}
    } catch (error) {
      const {code, stdout = '', stderr = ''} = error as {code?: number; stdout?: string; stderr?: string}
      return {exitCode: typeof code === 'number' ? code : 255, stdout, stderr}
    }
  }

  async function turnOff(): Promise<void> {
    if (isGone(booted.nspawn)) return
    const gone = once(booted.nspawn, 'exit')
    // An orderly shutdown: systemd-nspawn(1), --kill-signal.
    booted.nspawn.kill('SIGTERM')
    await gone
  }

  const machine: Machine = {
    path: path => `/proc/${booted.init}/root${path}`,
    read: path => readFile(machine.path(path), 'utf8'),
    write: (path, text) => writeFile(machine.path(path), text),
    run: inside,
    async do(...argv) {
      const {exitCode, stdout, stderr} = await inside(...argv)
      if (exitCode === 0) return stdout
      throw new Error(`${argv.join(' ')}: exit code ${exitCode}\n${stdout}${stderr}`)
    },
    async reboot() {
      await turnOff()
      booted.nspawn = await boot(directory, options)
      await untilBooted()
    },
    async [Symbol.asyncDispose]() {
      await turnOff()
      await run('umount', [root])
      await rm(directory, {recursive: true, force: true, maxRetries: 5})
    },
  }
  try {
    await untilBooted()
  } catch (error) {
    await machine[Symbol.asyncDispose]()
    throw error
  }
  return machine
}

async function boot(directory: string, {newerContainerd}: MachineOptions): Promise<ChildProcess> {
  const log = openSync(join(directory, 'log'), 'a')
  const binds = PLAIN_DIRECTORIES.map(path => `--bind=${join(directory, basename(path))}:${path}`)
  if (newerContainerd) binds.push(`--bind-ro=${dirname(newerPrograms('containerd'))}`)
  const older = existsSync('/sys/fs/cgroup/cgroup.controllers') ? {} : {SYSTEMD_NSPAWN_UNIFIED_HIERARCHY: '0'}
  return spawn(
    'systemd-nspawn',
    [
      '--boot',
      '--quiet',
      '--register=no',
      '--keep-unit',
      '--private-users=no',
      '--capability=all',
      '--system-call-filter=@mount @privileged mount bpf fanotify_init perf_event_open',
      '--bind=/dev/fuse',
      '--property=DeviceAllow=/dev/fuse rwm',
      ...binds,
      `--machine=${basename(directory)}`,
      `--directory=${join(directory, 'root')}`,
    ],
    {env: {...process.env, ...older}, stdio: ['ignore', log, log]},
  )
}

/** The first process of a machine; 0 while there is none. */
async function initOf(nspawn: ChildProcess): Promise<number> {
  const children = await readFile(`/proc/${nspawn.pid}/task/${nspawn.pid}/children`, 'utf8').catch(() => '')
  const pid = Number(children.trim().split(' ')[0] || 0)
  if (pid === 0) return 0
  // Until then it is systemd-nspawn itself that prepares the machine.
  const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')
  return name.trim() === 'systemd' ? pid : 0
}

function isGone(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null
}
