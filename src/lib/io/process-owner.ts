// Who made a file: a token that other processes can check, so that what a killed process left is told from live work.

import {readFileSync, readlinkSync} from 'node:fs'

/** Files of a process that we cannot see (another container sharing the directory) are believed alive this long. */
const FOREIGN_LIFETIME_MS = 24 * 60 * 60 * 1000

/**
 * A token for this process, fit for a file name: `<boot>.<pid namespace>.<pid>.<start time>`. The start time (clock
 * ticks since boot, proc(5) field 22) tells a process from a later one with the same id.
 */
export function ownerToken(): string {
  own ??= [bootId(), pidNamespace(), process.pid, startTimeOf(process.pid) ?? 'unknown'].join('.')
  return own
}

/** Whether the process that `token` names may still run; `modifiedMs` is the age of its file, in epoch ms. */
export function isOwnerAlive(token: string, modifiedMs: number): boolean {
  const [boot, namespace, pid, startTime] = token.split('.')
  if (!boot || !namespace || !pid || !startTime) return false
  if (boot !== bootId()) return false
  if (namespace !== pidNamespace()) return Date.now() - modifiedMs < FOREIGN_LIFETIME_MS
  return startTimeOf(Number(pid)) === startTime
}

let own: string | undefined

function bootId(): string {
  return readQuietly('/proc/sys/kernel/random/boot_id')?.trim().slice(0, 8) ?? 'noboot'
}

function pidNamespace(): string {
  try {
    return /\d+/.exec(readlinkSync('/proc/self/ns/pid'))?.[0] ?? '0'
  } catch {
    return '0'
  }
}

function startTimeOf(pid: number): string | undefined {
  // The command name, in parentheses, may hold spaces and parentheses itself: count fields after the last one.
  const fields = readQuietly(`/proc/${pid}/stat`)
    ?.replace(/^.*\) /s, '')
    .split(' ')
  const [state, ...rest] = fields ?? []
  if (state === undefined || state === 'Z' || state === 'X') return undefined
  return rest[18]
}

function readQuietly(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}
