// systemd's units, through systemctl.

import {existsSync} from 'node:fs'
import {CodedError} from '../errors/coded-error.ts'
import {runCommand, runCommandOrThrow} from '../io/run-command.ts'
import type {CallOptions} from '../oci/content-store.ts'

export interface Unit {
  /** False when systemd knows no unit of this name. */
  readonly isLoaded: boolean
  readonly isActive: boolean
  /** Whether it starts with the machine. */
  readonly isEnabled: boolean
  /** Its file; undefined for none. */
  readonly path: string | undefined
  /** The command line that it starts with; empty when unknown. */
  readonly command: readonly string[]
}

/** A service that takes longer than this to stop and start is not waited for: twice systemd's own limit of each. */
const JOB_TIMEOUT_MS = 6 * 60_000

/** Whether this machine was started by systemd; sd_booted(3) looks for the same. */
export function isSystemdHere(): boolean {
  return existsSync('/run/systemd/system')
}

export async function showUnit(name: string, options: CallOptions = {}): Promise<Unit> {
  const properties = ['LoadState', 'ActiveState', 'UnitFileState', 'FragmentPath', 'ExecStart']
  const args = ['show', ...properties.map(property => `--property=${property}`), '--', name]
  const {stdout} = await runCommandOrThrow('systemctl', args, options)
  const values = new Map(
    stdout.split('\n').map(line => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
  )
  const command = / argv\[\]=(.*?) ; /.exec(values.get('ExecStart') ?? '')?.[1]
  return {
    isLoaded: values.get('LoadState') === 'loaded',
    isActive: ['active', 'activating', 'reloading'].includes(values.get('ActiveState') ?? ''),
    isEnabled: values.get('UnitFileState') === 'enabled',
    path: values.get('FragmentPath') || undefined,
    command: command === undefined ? [] : command.split(' '),
  }
}

/** Reads unit files again. */
export async function reloadUnits(options: CallOptions = {}): Promise<void> {
  await runCommandOrThrow('systemctl', ['daemon-reload'], options)
}

/** Does something with a unit and waits for it; throws `failed-precondition` with the last that the service said. */
export async function controlUnit(
  verb: 'start' | 'restart' | 'stop' | 'enable' | 'disable' | 'reset-failed',
  name: string,
  options: CallOptions = {},
): Promise<void> {
  const {exitCode, stderr} = await runCommand('systemctl', [verb, '--quiet', '--', name], {
    ...options,
    timeoutMs: JOB_TIMEOUT_MS,
  })
  if (exitCode === 0) return
  const said = verb === 'start' || verb === 'restart' ? await lastWords(name, options) : ''
  throw new CodedError(
    'failed-precondition',
    `Cannot ${verb} ${name}: ${said || stderr.trim().slice(0, 1000) || `exit code ${exitCode}`}`,
  )
}

/** The last lines of a service's log, in one. */
async function lastWords(name: string, options: CallOptions): Promise<string> {
  // Of the service alone: what systemd says of it tells nothing.
  const args = [`_SYSTEMD_UNIT=${name}`, '--lines=3', '--output=cat', '--no-pager', '--quiet']
  const {stdout} = await runCommand('journalctl', args, options).catch(() => ({stdout: ''}))
  return stdout.trim().replaceAll('\n', '; ').slice(0, 1000)
}
