// Suites that need more than Node: each names what it needs. On CI a missing need is a failure, not a skip.

import {spawnSync} from 'node:child_process'
import {describe} from 'vitest'
import {hasMachine, whyNoMachine} from './machine.ts'
import {hasNewer, NEWER_PROGRAMS, type NewerProgram, whyNoNewer} from './newer-programs.ts'

/** What a suite may need of the machine. Any other name is a command that must be on the PATH. */
export type Need = 'root' | 'machine' | `newer-${NewerProgram}` | (string & {})

/** `describe`, when every need is met; otherwise the suite is skipped under a name that says what is missing. */
export function describeWith(needs: readonly Need[], name: string, body: () => void): void {
  const missing = needs.filter(need => !isMet(need))
  const [only = '', another] = missing
  // What a distribution may be unable to give; setup has tried and written down why.
  const reason = another === undefined ? whyNot(only) : undefined
  if (missing.length === 0) {
    describe(name, body)
  } else if (reason !== undefined) {
    describe.skip(`${name} (not run: ${reason})`, body)
  } else if (process.env.CI) {
    throw new Error(`Cannot run "${name}": this machine lacks ${missing.join(', ')}; run bin/setup as root`)
  } else {
    describe.skip(`${name} (not run: needs ${missing.join(', ')})`, body)
  }
}

function whyNot(need: Need): string | undefined {
  const newer = newerProgramOf(need)
  const reason = newer ? whyNoNewer(newer) : need === 'machine' ? whyNoMachine() : undefined
  return reason && `no ${newer ? `newer ${newer}` : need}, ${reason}`
}

function isMet(need: Need): boolean {
  if (need === 'root') return process.getuid?.() === 0
  if (need === 'machine') return hasMachine()
  const newer = newerProgramOf(need)
  if (newer) return hasNewer(newer)
  return spawnSync('sh', ['-c', `command -v -- "$1"`, 'sh', need]).status === 0
}

function newerProgramOf(need: Need): NewerProgram | undefined {
  return NEWER_PROGRAMS.find(name => need === `newer-${name}`)
}
