// Suites that need more than Node: each names what it needs. On CI a missing need is a failure, not a skip.

import {spawnSync} from 'node:child_process'
import {describe} from 'vitest'
import {hasNewerContainerd, whyNoNewerContainerd} from './newer-containerd.ts'

/** What a suite may need of the machine. Any other name is a command that must be on the PATH. */
export type Need = 'root' | 'newer-containerd' | (string & {})

/** `describe`, when every need is met; otherwise the suite is skipped under a name that says what is missing. */
export function describeWith(needs: readonly Need[], name: string, body: () => void): void {
  const missing = needs.filter(need => !isMet(need))
  // The one need that a distribution may be unable to meet; setup has tried and written down why.
  const reason = missing.join() === 'newer-containerd' ? whyNoNewerContainerd() : undefined
  if (missing.length === 0) {
    describe(name, body)
  } else if (reason !== undefined) {
    describe.skip(`${name} (not run: no newer containerd, ${reason})`, body)
  } else if (process.env.CI) {
    throw new Error(`Cannot run "${name}": this machine lacks ${missing.join(', ')}; run bin/setup as root`)
  } else {
    describe.skip(`${name} (not run: needs ${missing.join(', ')})`, body)
  }
}

function isMet(need: Need): boolean {
  if (need === 'root') return process.getuid?.() === 0
  if (need === 'newer-containerd') return hasNewerContainerd()
  return spawnSync('sh', ['-c', `command -v -- "$1"`, 'sh', need]).status === 0
}
