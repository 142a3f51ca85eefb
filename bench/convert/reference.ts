// The reference: Debian's ctr-remote (stargz-snapshotter), and a containerd of our own for it to work with.

import {spawn} from 'node:child_process'
import {once} from 'node:events'
import {existsSync} from 'node:fs'
import {mkdir, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import {execa} from 'execa'

/** Debian's package puts it there; ours may come first on the PATH. */
const PROGRAM = '/usr/bin/ctr-remote'

/** A containerd with the images of a benchmark in it. Disposing stops it. */
export interface Reference extends AsyncDisposable {
  readonly pid: number
  readonly version: string
  /** Keeps the daemon on these processors, in taskset's notation. */
  limit(cpus: string): Promise<void>
  /** Takes an OCI layout in, under a name. */
  load(layout: string, name: string): Promise<void>
  convertCommand(flags: readonly string[], source: string, target: string): readonly string[]
  /** The layers' bytes of an image. */
  layerBytes(name: string): Promise<number>
  remove(name: string): Promise<void>
}

/** Starts it under `directory`, or says why that cannot be. */
export async function startReference(directory: string): Promise<Reference | string> {
  if (process.getuid?.() !== 0) return 'containerd needs root'
  if (!existsSync(PROGRAM)) return `${PROGRAM} (Debian package stargz-snapshotter) is not installed`
  const address = join(directory, 'containerd.sock')
  const config = join(directory, 'containerd.toml')
  await mkdir(directory, {recursive: true})
  await writeFile(config, configFor(directory, address))
  const daemon = spawn('containerd', ['--config', config, '--log-level', 'error'], {stdio: 'ignore'})
  const exited = once(daemon, 'exit')
  const stop = async () => {
    daemon.kill('SIGTERM')
    await exited
  }

  const ctr = ['--address', address, '--namespace', 'bench']
  try {
    await waitForDaemon(address)
    const {stdout: installed} = await execa('dpkg-query', ['--show', 'stargz-snapshotter'])
    return {
      pid: daemon.pid!,
      version: installed.split('\t')[1]!,
      async limit(cpus) {
        await execa('taskset', ['--all-tasks', '--pid', '--cpu-list', cpus, String(daemon.pid)])
      },
      async load(layout, name) {
        // ctr imports a tar of a layout, and names the image by its annotation: skopeo writes such a tar.
        const archive = join(directory, 'import.tar')
        await execa('skopeo', ['copy', '--quiet', `oci:${layout}:latest`, `oci-archive:${archive}:${name}`])
        await execa('ctr', [...ctr, 'image', 'import', '--no-unpack', archive])
        await execa('rm', ['-f', archive])
      },
      convertCommand: (flags, source, target) => [
        PROGRAM,
        ...ctr,
        'image',
        'convert',
        ...flags,
        '--oci',
        source,
        target,
      ],
      async layerBytes(name) {
        const {stdout: list} = await execa('ctr', [...ctr, 'image', 'list', `name==${name}`])
        const digest = /sha256:[0-9a-f]{64}/.exec(list)![0]
        const {stdout: manifest} = await execa('ctr', [...ctr, 'content', 'get', digest])
        const {layers} = JSON.parse(manifest) as {layers: {size: number}[]}
        return layers.reduce((bytes, layer) => bytes + layer.size, 0)
      },
      async remove(name) {
        await execa('ctr', [...ctr, 'image', 'remove', '--sync', name])
      },
      [Symbol.asyncDispose]: stop,
    }
  } catch (error) {
    await stop()
    throw error
  }
}

function configFor(directory: string, address: string): string {
  return `version = 2
root = "${directory}/root"
state = "${directory}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs"]
[grpc]
  address = "${address}"
[ttrpc]
  address = "${address}.ttrpc"
`
}

async function waitForDaemon(address: string): Promise<void> {
  const deadline = Date.now() + 30_000
  for (;;) {
    const {exitCode} = await execa('ctr', ['--address', address, 'version'], {reject: false})
    if (exitCode === 0) return
    if (Date.now() > deadline) throw new Error('containerd did not come up within 30 s')
    await sleep(100)
  }
}
