// Directories for what is only needed for a while.

import {mkdtemp} from 'node:fs/promises'
import {join} from 'node:path'
import {CodedError, hasCode, messageOf} from '../errors/coded-error.ts'

/** Makes a directory of our own in `parent`; throws `failed-precondition` where none can be made. */
export async function makeTemporaryDirectory(parent: string, prefix: string): Promise<string> {
  return mkdtemp(join(parent, prefix)).catch(cause => {
    throw temporaryDirectoryError(parent, cause)
  })
}

/** What is wrong with a directory for temporary files, in words; any other error is itself. */
export function temporaryDirectoryError(directory: string, cause: unknown): unknown {
  if (!hasCode(cause, 'not-found', 'permission-denied')) return cause
  const problem = hasCode(cause, 'not-found') ? 'there is no such directory' : messageOf(cause)
  return new CodedError(
    'failed-precondition',
    `Cannot make temporary files in ${JSON.stringify(directory)}: ${problem}; set TMPDIR to a directory that can be written to`,
    {cause},
  )
}
