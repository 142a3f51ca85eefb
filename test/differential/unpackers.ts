// Those who unpack layers, each into an empty directory, many at once: containerd's own applier, GNU tar, umoci.

import {execFile} from 'node:child_process'
import {copyFile, link, mkdir, readdir, readFile, rm, writeFile} from 'node:fs/promises'
import {basename, join} from 'node:path'
import {promisify} from 'node:util'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {Content} from '../../src/lib/containerd/proto/content_pb.ts'
import {Diff} from '../../src/lib/containerd/proto/diff_pb.ts'
import {type ContainerdStore, openContainerdStore} from '../../src/lib/containerd/store.ts'
import {codeOf} from '../../src/lib/errors/coded-error.ts'
import {mapOrdered} from '../../src/lib/io/ordered-map.ts'
import {OCI_LAYER} from '../../src/lib/oci/media-type.ts'
import {startContainerd} from '../support/containerd.ts'
import {writeBlob} from '../support/sample-image.ts'

/** A layer, and an empty directory for what is in it. */
export interface UnpackJob {
  readonly tar: Uint8Array
  readonly directory: string
}

/** For each job why it was refused; undefined when it was done. Files beside the directories are the unpacker's own. */
export type Unpacker = (jobs: readonly UnpackJob[]) => Promise<readonly (string | undefined)[]>

export interface ContainerdUnpacker extends AsyncDisposable {
  readonly unpack: Unpacker
}

/** Layers that containerd has in work: most of the time it waits for the disk. */
const LAYERS_AHEAD = 8

/** containerd's diff service, which applies a layer to the upper directory of an overlayfs, as when it pulls. It has `directory` for itself. */
export async function startContainerdUnpacker(directory: string): Promise<ContainerdUnpacker> {
  await mkdir(directory)
  const containerd = await startContainerd({directory})
  const store = await openContainerdStore({address: containerd.address, namespace: 'differential'})
  const lease = await store.lease()
  return {
    unpack: async jobs => {
      const refusals = new Map<UnpackJob, string | undefined>()
      // One after the other where they have the same layer, which each takes away in the end.
      const groups = Map.groupBy(jobs, ({tar}) => digestOf(tar)).values()
      const apply = async (group: readonly UnpackJob[]) => {
        for (const job of group) refusals.set(job, await applyLayer(store, job))
      }
      for await (const _ of mapOrdered(groups, apply, {weightOf: () => 1, maxWeight: LAYERS_AHEAD}));
      return jobs.map(job => refusals.get(job))
    },
    async [Symbol.asyncDispose]() {
      await lease[Symbol.asyncDispose]()
      await store[Symbol.asyncDispose]()
      await containerd[Symbol.asyncDispose]()
    },
  }
}

async function applyLayer(store: ContainerdStore, {tar, directory}: UnpackJob): Promise<string | undefined> {
  const {digest, size} = await writeBlob(store.content, tar, OCI_LAYER)
  const options = [`upperdir=${directory}`, `workdir=${directory}.work`, `lowerdir=${directory}.lower`]
  const mounts = [{type: 'overlay', source: 'overlay', target: '', options}]
  const diff = {mediaType: OCI_LAYER, digest, size: BigInt(size), annotations: {}}
  try {
    await store.client.call(Diff.method.apply, {diff, mounts}, {doing: 'apply a layer'})
    return undefined
  } catch (error) {
    if (codeOf(error) === 'cancelled') throw error
    return String(error)
  } finally {
    await store.client.call(Content.method.delete, {digest}, {doing: 'delete a layer'})
  }
}

/** Where a root has the tools, under a name that no layer has. */
const TOOLS = '.tools'

/**
 * GNU tar in a root of its own for each layer, where links lead as they do in an image; with --absolute-names, since it otherwise
 * puts a file in the place of a link to `..` or `/x`, and takes a later file of that name for its own when it has the same
 * inode number. `tools` is a directory of its own, on the file system of the layers.
 */
export async function prepareTar(tools: string): Promise<Unpacker> {
  await mkdir(tools)
  const {stdout: tar} = await promisify(execFile)('which', ['tar'])
  const {stdout: libraries} = await promisify(execFile)('ldd', [tar.trim()])
  const files = [tar.trim(), ...libraries.matchAll(/\/\S+/g).map(([path]) => path)]
  for (const file of files) await copyFile(file, join(tools, basename(file)))
  const names = await readdir(tools)
  const loader = names.find(name => name.startsWith('ld-'))!
  return async jobs => {
    for (const {directory} of jobs) {
      await mkdir(join(directory, TOOLS))
      for (const name of names) await link(join(tools, name), join(directory, TOOLS, name))
    }
    const refusals = await runOverTars(
      `chroot "$1" /${TOOLS}/${loader} --library-path /${TOOLS} /${TOOLS}/tar -x --absolute-names --xattrs '--xattrs-include=*' \
        --numeric-owner --same-owner --delay-directory-restore -p <"$1.tar"`,
      jobs,
    )
    for (const {directory} of jobs) await rm(join(directory, TOOLS), {recursive: true})
    return refusals
  }
}

export const unpackWithUmoci: Unpacker = async jobs => {
  for (const job of jobs) await writeLayout(job)
  return runOverTars('umoci raw unpack --image "$1.layout:x" "$1"', jobs)
}

/** Beside the directory: an image of nothing but the layer. */
async function writeLayout({tar, directory}: UnpackJob): Promise<void> {
  const layout = `${directory}.layout`
  await mkdir(join(layout, 'blobs', 'sha256'), {recursive: true})
  const put = async (bytes: Uint8Array, mediaType: string) => {
    const digest = digestOf(bytes)
    await writeFile(join(layout, 'blobs', 'sha256', digest.slice('sha256:'.length)), bytes)
    return {mediaType, digest, size: bytes.length}
  }
  const putJson = (value: unknown, mediaType: string) => put(Buffer.from(JSON.stringify(value)), mediaType)
  const layer = await put(tar, OCI_LAYER)
  const rootfs = {type: 'layers', diff_ids: [layer.digest]}
  const config = await putJson(
    {os: 'linux', architecture: 'amd64', rootfs, config: {}},
    'application/vnd.oci.image.config.v1+json',
  )
  const manifestType = 'application/vnd.oci.image.manifest.v1+json'
  const manifest = await putJson(
    {schemaVersion: 2, mediaType: manifestType, config, layers: [layer]},
    manifestType,
  )
  const named = {...manifest, annotations: {'org.opencontainers.image.ref.name': 'x'}}
  await writeFile(join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
  await writeFile(join(layout, 'index.json'), JSON.stringify({schemaVersion: 2, manifests: [named]}))
}

/** One shell runs the command for all: `$1` is the directory, and `$1.tar` the layer. */
async function runOverTars(
  command: string,
  jobs: readonly UnpackJob[],
): Promise<readonly (string | undefined)[]> {
  for (const {tar, directory} of jobs) await writeFile(`${directory}.tar`, tar)
  const script = `for directory; do set -- "$directory"; (${command}) 2>"$1.said" >&2 || echo failed >>"$1.said"; done`
  await promisify(execFile)('sh', ['-c', script, 'sh', ...jobs.map(({directory}) => directory)])
  return Promise.all(
    jobs.map(async ({directory}) => {
      const said = await readFile(`${directory}.said`, 'utf8')
      return said.endsWith('failed\n') ? said : undefined
    }),
  )
}
