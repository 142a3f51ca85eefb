// Where the daemon of this package is, under the name that outlives an upgrade.

import {realpath} from 'node:fs/promises'
import {join} from 'node:path'
import {CodedError} from '../lib/errors/coded-error.ts'
import {findAbove} from '../lib/io/find-above.ts'

const NAME = 'containerd-stargz-grpc'

/** Where administrators and packages put programs. */
const USUAL_DIRECTORIES = ['/usr/local/bin', '/usr/bin']

/** The path of containerd-stargz-grpc, seen from a file of this package: a usual one where that leads here. */
export async function findDaemon(from: string): Promise<string> {
  const own = findAbove(from, join('bin', NAME))
  if (own === undefined) {
    throw new CodedError('failed-precondition', `Cannot find ${NAME}, which comes with this program`)
  }
  const target = await realpath(own)
  for (const directory of USUAL_DIRECTORIES) {
    const path = join(directory, NAME)
    if ((await realpath(path).catch(() => undefined)) === target) return path
  }
  return target
}
