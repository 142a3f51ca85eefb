// Runs one command line of a built program, and keeps the code that V8 has made of it by then, beside what earlier runs
// kept: `node scripts/warm-run.ts DIRECTORY [ARGUMENT...]`.

import {CachedModules} from '../src/lib/io/cached-modules.ts'

const [, , directory, ...argv] = process.argv
const modules = new CachedModules(directory!)
const {main} = modules.load('main.cjs') as typeof import('../src/cli/main.ts')
process.on('exit', () => modules.saveCode(directory!))
await main(argv)
