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
  while (existsSync(`/proc/${pid}`) && !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))) {
    await new Promise(resolve => setImmediate(resolve))
  }
}
