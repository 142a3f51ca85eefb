// The first file that runs. It answers `--version` alone, and turns on Node's compile cache before anything large loads.

import {enableCompileCache} from 'node:module'
import {join} from 'node:path'
import {versionLine} from './version.ts'

const argv = process.argv.slice(2)

if (argv.length === 1 && (argv[0] === '--version' || argv[0] === '-v' || argv[0] === '-version')) {
  process.stdout.write(`${versionLine()}\n`)
} else {
  const directory = compileCacheDirectory()
  if (directory !== undefined) enableCompileCache(directory)
  const {main} = await import('./main.ts')
  await main(argv)
}

/**
 * In the user's own cache. Node's default is a shared name in /tmp, where another user could leave code for us, perhaps
 * as root, to run.
 */
function compileCacheDirectory(): string | undefined {
  const {XDG_CACHE_HOME, HOME} = process.env
  const cache = XDG_CACHE_HOME || (HOME && join(HOME, '.cache'))
  return cache ? join(cache, 'ctr-remote', 'compile') : undefined
}
