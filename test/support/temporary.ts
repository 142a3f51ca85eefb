// Temporary directories of tests, removed when the test that made them ends.

import {mkdtemp, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {onTestFinished} from 'vitest'

/** A fresh directory for the running test. */
export async function temporaryDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'ctr-remote-test-'))
  onTestFinished(() => rm(directory, {recursive: true, force: true}))
  return directory
}
