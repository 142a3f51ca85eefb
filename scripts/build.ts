// Bundles the command line into dist/cli: one entry per command, shared code split off, so that a command loads only
// what it runs; then writes oclif's manifest, so that help and parsing load no command at all. Daemons go into
// dist/daemons, with the threads and processes that they start.

import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import {dirname, join, resolve} from 'node:path'
import {Plugin} from '@oclif/core/config'
import {build} from 'esbuild'

const ROOT = resolve(import.meta.dirname, '..')

await bundle('dist/cli', listEntryPoints())
await bundle('dist/daemons', [
  {in: 'src/daemons/snapshotter/start.ts', out: 'containerd-stargz-grpc'},
  // The programs of threads, which are found by their names from any chunk.
  {in: 'src/lib/fuse/worker.ts', out: 'fuse-worker'},
  {in: 'src/daemons/snapshotter/parse-worker.ts', out: 'parse-worker'},
])
await writeManifest()

/** In a folder of its own beside, so that a build that fails leaves the last one in place, and two builds do not mix. */
async function bundle(folder: string, entryPoints: {in: string; out: string}[]): Promise<void> {
  const out = join(ROOT, folder)
  mkdirSync(dirname(out), {recursive: true})
  const fresh = mkdtempSync(`${out}.new-`)
  await build({
    absWorkingDir: ROOT,
    entryPoints,
    outdir: fresh,
    chunkNames: 'chunks/[name]-[hash]',
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    // Node 22 has no `await using`; esbuild rewrites it.
    target: 'node22.19',
    minifySyntax: true,
    sourcemap: 'linked',
    sourcesContent: false,
    logLevel: 'warning',
    define: {PACKAGE_VERSION: JSON.stringify(readVersion())},
    // CommonJS packages inside an ES module still call `require` for Node's own modules.
    banner: {
      js: "import {createRequire as __createRequire} from 'node:module'; const require = __createRequire(import.meta.url);",
    },
  })
  chmodSync(fresh, 0o755)
  for (;;) {
    rmSync(out, {recursive: true, force: true})
    try {
      return renameSync(fresh, out)
    } catch (error) {
      // Another build was faster, and is older.
      if ((error as NodeJS.ErrnoException).code !== 'ENOTEMPTY') throw error
    }
  }
}

/** The program at dist/cli/start.js, and each command at the place that its words name. */
function listEntryPoints(): {in: string; out: string}[] {
  const commands = readdirSync(join(ROOT, 'src/commands'), {recursive: true, encoding: 'utf8'})
    .filter(name => name.endsWith('.ts'))
    .map(name => ({in: `src/commands/${name}`, out: `commands/${name.slice(0, -'.ts'.length)}`}))
  return [{in: 'src/cli/start.ts', out: 'start'}, ...commands]
}

/** What oclif needs to know of every command: ids, flags and arguments, without their code. */
async function writeManifest(): Promise<void> {
  const file = join(ROOT, 'oclif.manifest.json')
  const plugin = new Plugin({
    root: ROOT,
    isRoot: true,
    // The last build's, which may lack commands.
    ignoreManifest: true,
    errorOnManifestCreate: true,
    respectNoCacheDefault: true,
  })
  await plugin.load()
  writeFileSync(file, `${JSON.stringify(plugin.manifest)}\n`)
}

function readVersion(): string {
  return JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')).version
}
