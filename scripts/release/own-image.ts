// The image of the release: this machine's C and C++ libraries and a small shell, and the release below /usr/local; in the
// local store's layout first, and from there through our own `optimize` into an archive.

import {execFileSync} from 'node:child_process'
import {copyFileSync, mkdirSync, symlinkSync, writeFileSync} from 'node:fs'
import {dirname, join} from 'node:path'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import type {ContentStore} from '../../src/lib/oci/content-store.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import {encodeJson} from '../../src/lib/oci/manifest.ts'
import {OCI_CONFIG, OCI_LAYER, OCI_MANIFEST} from '../../src/lib/oci/media-type.ts'

/** What a start reads, in this order; no run is needed to know. */
const READ_FIRST = `/bin/sh
/usr/local/lib/ctr-remote/bin/*
/usr/local/lib/ctr-remote/node
/lib*/**/*.so*
/usr/local/lib/ctr-remote/package.json
/usr/local/lib/ctr-remote/oclif.manifest.json
/usr/local/lib/ctr-remote/dist/cli/start.cjs
`

/** What the programs' launchers and a shell for people take. */
const APPLETS = [
  'sh',
  'cat',
  'find',
  'getent',
  'grep',
  'id',
  'ls',
  'mkdir',
  'mount',
  'ps',
  'readlink',
  'rm',
  'sleep',
  'uname',
]

export interface OwnImageOptions {
  readonly root: string
  /** What `laidOutProgram` has made. */
  readonly tree: string
  /** An empty directory to work in. */
  readonly scratch: string
  readonly version: string
  /** Of all files; seconds since 1970. */
  readonly epoch: string
  readonly tarOf: (directory: string) => Uint8Array
  /** The archive to write. */
  readonly out: string
}

export async function writeOwnImage(options: OwnImageOptions): Promise<void> {
  const {root, tree, scratch, version, epoch, tarOf, out} = options
  const [base, program, layout] = ['base', 'program', 'layout'].map(name => join(scratch, name)) as [
    string,
    string,
    string,
  ]
  layOutBase(base, join(tree, 'lib/ctr-remote/node'))
  mkdirSync(join(program, 'usr'), {recursive: true})
  execFileSync('cp', ['-a', tree, join(program, 'usr/local')])
  const name = `localhost/ctr-remote:${version}`
  await using store = await openLocalStore(layout)
  await using _lease = await store.lease()
  const tars = [tarOf(base), tarOf(program)]
  const config = {
    created: new Date(Number(epoch) * 1000).toISOString().replace('.000Z', 'Z'),
    architecture: 'amd64',
    os: 'linux',
    config: {
      Entrypoint: ['/usr/local/bin/ctr-remote'],
      Cmd: ['--help'],
      Env: ['PATH=/usr/local/bin:/usr/bin:/bin', 'HOME=/root'],
      Labels: {'org.opencontainers.image.title': 'ctr-remote', 'org.opencontainers.image.version': version},
    },
    rootfs: {type: 'layers', diff_ids: tars.map(tar => digestOf(tar))},
  }
  const manifest = {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: await writeBlob(store.content, encodeJson(config), OCI_CONFIG),
    layers: await Promise.all(tars.map(tar => writeBlob(store.content, tar, OCI_LAYER))),
  }
  await store.images.put(name, await writeBlob(store.content, encodeJson(manifest), OCI_MANIFEST))
  const list = join(scratch, 'read-first')
  writeFileSync(list, READ_FIRST)
  const places = [`oci:${layout}:${name}`, `oci-archive:${out}:${name}`]
  execFileSync(
    join(root, 'bin/ctr-remote'),
    ['image', 'optimize', '--oci', '--prefetch-list', list, ...places],
    {stdio: 'pipe'},
  )
}

/** A root file system in which Node.js starts. */
function layOutBase(base: string, node: string): void {
  for (const name of ['bin', 'etc', 'proc', 'dev', 'sys', 'run', 'tmp', 'root', 'var/lib', 'var/tmp']) {
    mkdirSync(join(base, name), {recursive: true})
  }
  execFileSync('chmod', ['1777', join(base, 'tmp'), join(base, 'var/tmp')])
  writeFileSync(join(base, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n')
  writeFileSync(join(base, 'etc/group'), 'root:x:0:\n')
  writeFileSync(join(base, 'etc/nsswitch.conf'), 'passwd: files\ngroup: files\nhosts: files dns\n')
  const libraries = execFileSync('ldd', [node], {encoding: 'utf8'}).matchAll(/(?:=> )?(\/\S+) \(0x/g)
  for (const [, path] of libraries) {
    mkdirSync(join(base, dirname(path!)), {recursive: true})
    copyFileSync(path!, join(base, path!))
  }
  copyFileSync('/usr/bin/busybox', join(base, 'bin/busybox'))
  for (const applet of APPLETS) symlinkSync('busybox', join(base, 'bin', applet))
}

async function writeBlob(content: ContentStore, bytes: Uint8Array, mediaType: string): Promise<Descriptor> {
  const descriptor = {mediaType, digest: digestOf(bytes), size: bytes.length}
  await using writer = await content.write(descriptor)
  await writer.write(bytes)
  await writer.commit(descriptor)
  return descriptor
}
