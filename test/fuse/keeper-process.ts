// Finding the keeper of a directory, which is nobody's child, and waiting for its end.

import {existsSync, readFileSync, statSync} from 'node:fs'
import {join} from 'node:path'

/** The process that has the lock in `directory`, as proc_locks(5) tells; undefined when none has. */
export function keeperOf(directory: string): number | undefined {
  const lock = join(directory, 'keeper.lock')
  if (!existsSync(lock)) return undefined
  const {ino} = statSync(lock)
  const line = readFileSync('/proc/locks', 'utf8')
    .split('\n')
    .find(text => text.includes(' FLOCK ') && text.includes(`:${ino} `))
  return line === undefined ? undefined : Number(line.split(/\s+/)[4])
}

/** Resolves when a process has ended, also before whoever started it has noticed. */
export async function hasEnded(pid: number): Promise<void> {
  while (!/^State:\s+Z|^$/m.test(statusOf(pid))) await new Promise(resolve => setImmediate(resolve))
}

/** Empty for a process that is gone, which it may be between opening the file and reading it. */
function statusOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/status`, 'utf8').trimEnd()
  } catch {
    return ''
  }
}
