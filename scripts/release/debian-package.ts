// The package for Debian: the release below /usr/lib, links to the programs, units, configurations and maintainer scripts.

import {execFileSync} from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import {join, resolve} from 'node:path'
import {gzipSync} from 'node:zlib'
import {PROGRAMS} from './program-tree.ts'

const MAINTAINER = 'The ctr-remote authors <maintainers@ctr-remote.dev>'
const SCRIPTS = resolve(import.meta.dirname, 'debian')

/** What is installed as it is in the release's examples, by its place there. */
const CONFIGURATIONS = {'snapshotter/config.toml': 'etc/containerd-stargz-grpc/config.toml'}
const UNITS = ['snapshotter/containerd-stargz-grpc.service', 'store/stargz-store.service']

export interface DebianPackageOptions {
  /** What `laidOutProgram` has made. */
  readonly tree: string
  /** An empty directory to work in. */
  readonly scratch: string
  readonly version: string
  /** Of all files; seconds since 1970. */
  readonly epoch: string
  /** The file to write. */
  readonly out: string
}

export function writeDebianPackage({tree, scratch, version, epoch, out}: DebianPackageOptions): void {
  const root = join(scratch, 'root')
  const home = join(root, 'usr/lib/ctr-remote')
  cpSync(join(tree, 'lib/ctr-remote'), home, {recursive: true, verbatimSymlinks: true})
  makeDirectory(root, 'usr/bin')
  for (const program of PROGRAMS) {
    symlinkSync(`../lib/ctr-remote/bin/${program}`, join(root, 'usr/bin', program))
  }
  placeDocuments(root, home, {version, epoch})
  makeDirectory(root, 'usr/lib/systemd/system')
  for (const unit of UNITS) {
    const text = readFileSync(join(home, 'examples', unit), 'utf8').replaceAll('/usr/local/bin/', '/usr/bin/')
    writeFileSync(join(root, 'usr/lib/systemd/system', unit.replace(/.*\//, '')), text)
  }
  const conffiles = Object.entries(CONFIGURATIONS).map(([from, to]) => {
    makeDirectory(root, to.replace(/\/[^/]*$/, ''))
    copyFileSync(join(home, 'examples', from), join(root, to))
    return `/${to}\n`
  })
  makeDirectory(root, 'DEBIAN')
  writeFileSync(join(root, 'DEBIAN/control'), controlOf(version, sizeOf(root)))
  writeFileSync(join(root, 'DEBIAN/conffiles'), conffiles.join(''))
  writeFileSync(join(root, 'DEBIAN/md5sums'), md5sumsOf(root))
  for (const script of ['postinst', 'prerm', 'postrm']) {
    copyFileSync(join(SCRIPTS, script), join(root, 'DEBIAN', script))
    chmodSync(join(root, 'DEBIAN', script), 0o755)
  }
  // gzip, which every dpkg reads; xz would take a minute to save a quarter.
  execFileSync('dpkg-deb', ['--root-owner-group', '-Zgzip', '-z6', '--build', root, out], {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: {...process.env, SOURCE_DATE_EPOCH: epoch},
  })
}

function controlOf(version: string, installedSize: number): string {
  return `Package: ctr-remote
Version: ${version}
Architecture: amd64
Maintainer: ${MAINTAINER}
Installed-Size: ${installedSize}
Depends: libc6 (>= 2.31), libgcc-s1, libstdc++6, init-system-helpers (>= 1.54)
Recommends: containerd, runc
Suggests: podman
Conflicts: stargz-snapshotter
Replaces: stargz-snapshotter
Section: admin
Priority: optional
Description: container images that start before they are downloaded
 Converts and optimizes container images to eStargz and zstd:chunked, and mounts
 them lazily: a container starts at once, and its files are fetched as it reads
 them.
 .
 This package has the command ctr-remote, the snapshotter containerd-stargz-grpc
 for containerd, and stargz-store for Podman and CRI-O.
`
}

/** Debian's places for what people read. */
function placeDocuments(
  root: string,
  home: string,
  {version, epoch}: Pick<DebianPackageOptions, 'version' | 'epoch'>,
): void {
  const documents = makeDirectory(root, 'usr/share/doc/ctr-remote')
  const copyright = [
    'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/',
    '',
    'Files: *',
    'Copyright: the ctr-remote authors',
    'License: Apache-2.0',
    ' On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.',
    ' What is inside, with its licences: /usr/share/doc/ctr-remote/THIRD-PARTY-NOTICES.gz.',
    '',
  ]
  writeFileSync(join(documents, 'copyright'), copyright.join('\n'))
  for (const name of ['THIRD-PARTY-NOTICES', 'CHANGELOG.md']) {
    const to = name === 'CHANGELOG.md' ? 'changelog.gz' : `${name}.gz`
    writeFileSync(join(documents, to), gzipSync(readFileSync(join(home, name)), {level: 9}))
  }
  const date = execFileSync('date', ['--utc', '--rfc-email', `--date=@${epoch}`], {encoding: 'utf8'}).trim()
  const entry = `ctr-remote (${version}) unstable; urgency=medium\n\n  * See changelog.gz.\n\n -- ${MAINTAINER}  ${date}\n`
  writeFileSync(join(documents, 'changelog.Debian.gz'), gzipSync(entry, {level: 9}))
  for (const name of ['docs', 'examples']) {
    renameSync(join(home, name), join(documents, name))
    symlinkSync(`../../share/doc/ctr-remote/${name}`, join(home, name))
  }
  const overrides = makeDirectory(root, 'usr/share/lintian/overrides')
  copyFileSync(join(SCRIPTS, 'lintian-overrides'), join(overrides, 'ctr-remote'))
}

function makeDirectory(root: string, name: string): string {
  const path = join(root, name)
  mkdirSync(path, {recursive: true, mode: 0o755})
  return path
}

/** KiB, as du(1) counts what is apparent. */
function sizeOf(root: string): number {
  const [kib] = execFileSync('du', ['-k', '-s', '--apparent-size', root], {encoding: 'utf8'}).split('\t')
  return Number(kib)
}

/** As md5sum(1) writes them, without those of configurations, which are users'. */
function md5sumsOf(root: string): string {
  const find = ['-type', 'f', '-not', '-path', './DEBIAN/*', '-not', '-path', './etc/*', '-printf', '%P\\n']
  const files = execFileSync('find', ['.', ...find], {cwd: root, encoding: 'utf8'})
    .trim()
    .split('\n')
    .sort()
  return execFileSync('md5sum', files, {cwd: root, encoding: 'utf8'})
}
