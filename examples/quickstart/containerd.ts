// A containerd of our own with our snapshotter, to start containers lazily in: everything of it is in one directory.

import {execFile} from 'node:child_process'
import {openSync} from 'node:fs'
import {mkdir, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {promisify} from 'node:util'
import {missingPrograms, ROOT, startService, untilThere} from './programs.ts'

const execute = promisify(execFile)

/** Where ctr-remote finds it. */
export interface Containerd {
  readonly address: string
  readonly namespace: string
}

/** Starts both daemons in `directory`; or says what this machine lacks. They run until `stopPrograms`. */
export async function startContainerd(directory: string): Promise<Containerd | string> {
  const missing = missingPrograms(['containerd', 'ctr', 'runc'])
  if (missing.length > 0) return `this machine lacks ${missing.join(', ')}`
  await mkdir(directory)
  const [address, snapshotter] = [join(directory, 'containerd.sock'), join(directory, 'stargz.sock')]
  const [config, lazyConfig] = [join(directory, 'containerd.toml'), join(directory, 'stargz.toml')]
  await writeFile(config, configOf(directory, address, snapshotter))
  await writeFile(lazyConfig, '')
  const output = openSync(join(directory, 'log'), 'a')
  // runc knows containers by namespace and name, for the whole machine.
  const namespace = `quickstart-${process.pid}`

  const lazy = [`--address=${snapshotter}`, `--config=${lazyConfig}`, `--root=${join(directory, 'stargz')}`]
  // An interrupt has it unmount everything; SIGTERM would leave the mounts to the next daemon.
  startService(join(ROOT, 'bin/containerd-stargz-grpc'), lazy, {signal: 'SIGINT', output})
  const beforeStop = () => removeTasks(['--address', address, '--namespace', namespace])
  startService('containerd', ['--config', config], {signal: 'SIGTERM', output, beforeStop})
  await untilThere(snapshotter)
  await untilThere(address)
  return {address, namespace}
}

/** Ends containers that an interrupt has left running. */
async function removeTasks(ctr: readonly string[]): Promise<void> {
  const {stdout} = await execute('ctr', [...ctr, 'tasks', 'ls', '-q'])
  for (const task of stdout.split('\n').filter(Boolean)) {
    await execute('ctr', [...ctr, 'tasks', 'rm', '--force', task])
  }
}

function configOf(directory: string, address: string, snapshotter: string): string {
  return `version = 2
root = "${directory}/root"
state = "${directory}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "${address}"
[ttrpc]
  address = "${address}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "${directory}/opt"
[proxy_plugins.stargz]
  type = "snapshot"
  address = "${snapshotter}"
`
}
