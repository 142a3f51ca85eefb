// The first file that runs. It answers `--version` alone, and starts everything else with code that is compiled already.

import {statSync} from 'node:fs'
import {join} from 'node:path'
import {CachedModules} from '../lib/io/cached-modules.ts'
import {answerForUnknownUsers} from './unknown-user.ts'
import {versionLine} from './version.ts'

const argv = process.argv.slice(2)

if (argv.length === 1 && (argv[0] === '--version' || argv[0] === '-v' || argv[0] === '-version')) {
  process.stdout.write(`${versionLine()}\n`)
} else {
  answerForUnknownUsers()
  startProgram(import.meta.dirname)
}

/** The build brings code for the Node.js that npm brings; another one keeps its code in the user's cache. */
function startProgram(directory: string): void {
  const modules = new CachedModules(directory, () => userCodeDirectory(directory))
  const {main} = modules.load('main.cjs') as typeof import('./main.ts')
  process.on('exit', () => {
    if (!modules.isCached) saveQuietly(modules, userCodeDirectory(directory))
  })
  // It ends the process.
  void main(argv)
}

/**
 * In the user's own cache: a shared directory, as Node's default in /tmp, is where another user could leave code for us,
 * perhaps as root, to run.
 */
function userCodeDirectory(directory: string): string | undefined {
  const {XDG_CACHE_HOME, HOME} = process.env
  const cache = XDG_CACHE_HOME || (HOME && join(HOME, '.cache'))
  if (!cache) return undefined
  const {mtimeMs, ino} = statSync(join(directory, 'main.cjs'))
  const build = [directory, mtimeMs, ino, process.version, process.arch].join('\n')
  // Not imported above: it takes a tenth of this program's start, and most starts do not come here.
  const {createHash} = process.getBuiltinModule('node:crypto')
  const name = createHash('sha256').update(build).digest('hex').slice(0, 24)
  return join(cache, 'ctr-remote', 'code', name)
}

/** A cache that cannot be written costs time, and is no failure. */
function saveQuietly(modules: CachedModules, directory: string | undefined): void {
  try {
    if (directory !== undefined) modules.saveCode(directory)
  } catch {}
}
