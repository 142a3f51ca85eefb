// Builds the programs, into dist or the directory that is named (`node scripts/build.ts [DIRECTORY]`). The command line goes into dist/cli, and beside each file the code that V8 has made of it
// (warm-code.ts); oclif's manifest is written, so that help loads no command at all. Daemons go into dist/daemons, with
// the threads and processes that they start.

import {chmodSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync} from 'node:fs'
import {basename, dirname, join, relative, resolve} from 'node:path'
import {Plugin} from '@oclif/core/config'
import {type BuildOptions, build, type TransformOptions, transform} from 'esbuild'
import {MODULE_WRAPPER} from '../src/lib/io/cached-modules.ts'
import {warmCode} from './warm-code.ts'

const ROOT = resolve(import.meta.dirname, '..')
const OUT = resolve(process.argv[2] ?? join(ROOT, 'dist'))

/** What the bundles have in common. */
const COMMON = {
  absWorkingDir: ROOT,
  bundle: true,
  platform: 'node',
  // Node 22 has no `await using`; esbuild rewrites it.
  target: 'node22.19',
  minifySyntax: true,
  sourcemap: 'linked',
  sourcesContent: false,
  logLevel: 'warning',
  define: {PACKAGE_VERSION: JSON.stringify(readVersion())},
} as const satisfies BuildOptions

const ES_MODULE = {
  format: 'esm',
  // CommonJS packages inside an ES module still call `require` for Node's own modules.
  banner: {
    js: "import {createRequire as __createRequire} from 'node:module'; const require = __createRequire(import.meta.url);",
  },
} as const satisfies BuildOptions

await replaceFolder('cli', async folder => {
  await bundleCommandLine(folder)
  await writeManifest(folder)
  await warmCode(folder)
})
await replaceFolder('daemons', bundleDaemons)

/** Built in a folder of its own beside, so that a build that fails leaves the last one in place, and two builds do not mix. */
async function replaceFolder(folder: string, fill: (fresh: string) => Promise<void>): Promise<void> {
  const out = join(OUT, folder)
  mkdirSync(dirname(out), {recursive: true})
  const fresh = mkdtempSync(`${out}.new-`)
  await fill(fresh)
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

/**
 * As CommonJS files, one for what each command alone needs and others for what several share: V8's code of them can be
 * kept and shipped, and there is no graph of modules to resolve at each start.
 */
async function bundleCommandLine(outdir: string): Promise<void> {
  const commonJs = {
    format: 'cjs',
    platform: 'node',
    target: COMMON.target,
    define: {'import.meta.dirname': '__dirname', 'import.meta.url': '__filename'},
  } as const satisfies TransformOptions
  const {define, ...rest} = commonJs
  await build({
    ...COMMON,
    ...rest,
    entryPoints: ['src/cli/start.ts'],
    outdir,
    outExtension: {'.js': '.cjs'},
    define: {...COMMON.define, ...define},
  })
  const {outputFiles} = await build({
    ...COMMON,
    entryPoints: ['src/cli/main.ts'],
    outdir,
    outExtension: {'.js': '.cjs'},
    splitting: true,
    format: 'esm',
    sourcemap: 'inline',
    write: false,
  })
  const [before, after] = MODULE_WRAPPER
  for (const {path, text} of outputFiles) {
    const {code, map} = await transform(text, {
      ...commonJs,
      // Files are loaded by `require` alone.
      supported: {'dynamic-import': false},
      banner: before,
      footer: after,
      sourcemap: 'external',
      sourcesContent: false,
      sourcefile: path,
    })
    writeFileSync(path, `${code}//# sourceMappingURL=${basename(path)}.map\n`)
    writeFileSync(`${path}.map`, map)
  }
}

async function bundleDaemons(outdir: string): Promise<void> {
  await build({
    ...COMMON,
    entryPoints: [
      {in: 'src/daemons/snapshotter/start.ts', out: 'containerd-stargz-grpc'},
      {in: 'src/daemons/layer-store/start.ts', out: 'stargz-store'},
      {in: 'src/daemons/layer-store/helper.ts', out: 'stargz-store-helper'},
      // The program of threads, which is found by its name from any chunk.
      {in: 'src/lib/fuse-worker/fuse-worker.ts', out: 'fuse-worker'},
    ],
    outdir,
    chunkNames: 'chunks/[name]-[hash]',
    splitting: true,
    ...ES_MODULE,
  })
}

/** What oclif needs to know of every command: ids, flags and arguments, without their code. */
async function writeManifest(folder: string): Promise<void> {
  const classes = join(folder, 'command-classes.mjs')
  const contents = `import {COMMANDS as LOADERS} from './src/cli/command-table.ts'
    const load = async ([id, load]) => [id, (await load()).default]
    export const COMMANDS = Object.fromEntries(await Promise.all(Object.entries(LOADERS).map(load)))`
  await build({
    ...COMMON,
    ...ES_MODULE,
    sourcemap: false,
    stdin: {contents, resolveDir: ROOT},
    outfile: classes,
  })
  const pjson = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  const plugin = new Plugin({
    root: ROOT,
    isRoot: true,
    pjson: {
      ...pjson,
      oclif: {
        ...pjson.oclif,
        commands: {strategy: 'explicit', target: relative(ROOT, classes), identifier: 'COMMANDS'},
      },
    },
    // The last build's, which may lack commands.
    ignoreManifest: true,
    errorOnManifestCreate: true,
    respectNoCacheDefault: true,
  })
  await plugin.load()
  rmSync(classes)
  writeFileSync(join(OUT, '../oclif.manifest.json'), `${JSON.stringify(plugin.manifest)}\n`)
}

function readVersion(): string {
  return JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')).version
}
