// Makes what is published, in release/: for each kind of processor an archive of everything that it takes to run, another
// of programs that are one file each, a package for Debian, an image, and what they are made of; and the checksums of all.
// The same sources give the same bytes: times are of the last commit, or of $SOURCE_DATE_EPOCH.
//
//   npm run release                          builds first
//   node scripts/release/release.ts [DIRECTORY]   packs what has been built

import {execFileSync} from 'node:child_process'
import {createHash} from 'node:crypto'
import {existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join, resolve} from 'node:path'
import {gzipSync} from 'node:zlib'
import {billOfMaterials} from './bill-of-materials.ts'
import {writeDebianPackage} from './debian-package.ts'
import {writeOwnImage} from './own-image.ts'
import {laidOutProgram} from './program-tree.ts'
import {writeSinglePrograms} from './single-file.ts'

const ROOT = resolve(import.meta.dirname, '../..')
const {version} = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
const epoch =
  process.env.SOURCE_DATE_EPOCH ??
  execFileSync('git', ['log', '-1', '--format=%ct'], {cwd: ROOT, encoding: 'utf8'}).trim()
const out = resolve(process.argv[2] ?? join(ROOT, 'release'))

rmSync(out, {recursive: true, force: true})
mkdirSync(out, {recursive: true})
const scratch = mkdtempSync(join(tmpdir(), 'ctr-remote-release-'))
try {
  const name = `ctr-remote-${version}-linux-amd64`
  const tree = join(scratch, 'tree')
  laidOutProgram(ROOT, tree)
  const archive = gzipSync(tarOf(tree), {level: 9})
  writeFileSync(join(out, `${name}.tar.gz`), archive)
  const single = join(scratch, 'single')
  mkdirSync(single)
  writeSinglePrograms(single, version, archive)
  // What is in it is compressed.
  writeFileSync(join(out, `${name}-single.tar`), tarOf(single))
  if (existsSync('/usr/bin/dpkg-deb')) {
    const debian = join(scratch, 'debian')
    mkdirSync(debian)
    writeDebianPackage({
      tree,
      scratch: debian,
      version,
      epoch,
      out: join(out, `ctr-remote_${version}_amd64.deb`),
    })
  } else {
    console.error('no package for Debian is made: dpkg-deb is missing')
  }
  const own = join(scratch, 'image')
  mkdirSync(own)
  await writeOwnImage({
    root: ROOT,
    tree,
    scratch: own,
    version,
    epoch,
    tarOf,
    out: join(out, `${name}.oci.tar`),
  })
  const materials = billOfMaterials(ROOT, version, new Date(Number(epoch) * 1000))
  writeFileSync(join(out, `${name}.cdx.json`), `${JSON.stringify(materials, undefined, 2)}\n`)
} finally {
  rmSync(scratch, {recursive: true, force: true})
}
writeFileSync(join(out, 'SHA256SUMS'), checksumsOf(out))

/** A tar of a directory's contents, whoever made it. */
function tarOf(tree: string): Buffer {
  const sameForAll = [
    '--format=gnu',
    '--sort=name',
    `--mtime=@${epoch}`,
    '--owner=0',
    '--group=0',
    '--numeric-owner',
  ]
  const names = readdirSync(tree).sort()
  return execFileSync('tar', ['-c', ...sameForAll, '-C', tree, ...names], {maxBuffer: 2 ** 30})
}

/** In the format of sha256sum(1). */
function checksumsOf(directory: string): string {
  const lines = readdirSync(directory)
    .sort()
    .map(
      file =>
        `${createHash('sha256')
          .update(readFileSync(join(directory, file)))
          .digest('hex')}  ${file}\n`,
    )
  return lines.join('')
}
