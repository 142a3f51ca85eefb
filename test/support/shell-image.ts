// A small image that runs: this machine's own shell and a few tools, with the libraries they need.

import {execFile} from 'node:child_process'
import {cp, mkdir, mkdtemp, rm, writeFile} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {dirname, join} from 'node:path'
import {promisify} from 'node:util'
import {gzipSync} from 'node:zlib'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import type {ContentStore} from '../../src/lib/oci/content-store.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import {encodeJson, type RunConfig} from '../../src/lib/oci/manifest.ts'
import {OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST} from '../../src/lib/oci/media-type.ts'
import {hostPlatform} from '../../src/lib/oci/platform.ts'
import {writeBlob} from './sample-image.ts'

const run = promisify(execFile)

const PROGRAMS = [
  '/bin/sh',
  '/bin/cat',
  '/bin/sleep',
  '/usr/bin/id',
  '/bin/stty',
  '/bin/ls',
  '/usr/bin/touch',
]

/** Writes the image; its second layer has `/data`, which keeps it from being all one layer. */
export async function writeShellImage(content: ContentStore, config: RunConfig = {}): Promise<Descriptor> {
  const directory = await mkdtemp(join(tmpdir(), 'ctr-remote-rootfs-'))
  try {
    await makeRootfs(directory)
    const base = await tar(directory)
    await rm(directory, {recursive: true})
    await mkdir(join(directory, 'data'), {recursive: true})
    await writeFile(join(directory, 'data/file'), 'data\n')
    const tars = [base, await tar(directory)]
    const layers: Descriptor[] = []
    for (const bytes of tars)
      layers.push(await writeBlob(content, gzipSync(bytes, {level: 1}), OCI_LAYER_GZIP))
    const rootfs = {type: 'layers', diff_ids: tars.map(digestOf)}
    const document = encodeJson({...hostPlatform(), config: {Cmd: ['/bin/sh'], ...config}, rootfs})
    const manifest = {
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: await writeBlob(content, document, OCI_CONFIG),
      layers,
    }
    return await writeBlob(content, encodeJson(manifest), OCI_MANIFEST)
  } finally {
    await rm(directory, {recursive: true, force: true})
  }
}

async function makeRootfs(directory: string): Promise<void> {
  const needed = new Set(PROGRAMS)
  for (const program of PROGRAMS) {
    const {stdout} = await run('ldd', [program])
    for (const [, path] of stdout.matchAll(/(?:=> )?(\/\S+) \(0x/g)) needed.add(path!)
  }
  for (const path of needed) {
    await mkdir(join(directory, dirname(path)), {recursive: true})
    await cp(path, join(directory, path), {dereference: true})
  }
  for (const name of ['etc', 'tmp', 'proc', 'dev', 'sys', 'run'])
    await mkdir(join(directory, name), {recursive: true})
  await writeFile(join(directory, 'etc/passwd'), 'root:x:0:0::/:/bin/sh\nweb:x:33:44::/:/bin/sh\n')
  await writeFile(join(directory, 'etc/group'), 'root:x:0:\nweb:x:44:\nmore:x:55:web\n')
}

async function tar(directory: string): Promise<Buffer> {
  const args = ['-C', directory, '--owner=0', '--group=0', '--numeric-owner', '-cf', '-', '.']
  const {stdout} = await run('tar', args, {encoding: 'buffer', maxBuffer: 256 * 1024 * 1024})
  return stdout
}
