// Runs a container on containerd as `ctr run` does: snapshot, spec, container, task; and everything gone again.

import {mkdir, rm, rmdir, writeFile} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {
  createContainer,
  createTask,
  deleteContainer,
  destroyTask,
  hasContainer,
  type Task,
} from '../containerd/container.ts'
import type {Labels} from '../containerd/gc-labels.ts'
import {createSnapshot, mountSnapshot, removeSnapshot} from '../containerd/snapshot-mounts.ts'
import type {ContainerdStore} from '../containerd/store.ts'
import {createTaskStreams, NO_STREAMS, type TaskStreams} from '../containerd/task-streams.ts'
import {unpackImage} from '../containerd/unpack.ts'
import {CodedError} from '../errors/coded-error.ts'
import {readConfig, readImageTree} from '../image/image-tree.ts'
import {writeOutput} from '../io/output.ts'
import {makeTemporaryDirectory} from '../io/temporary-directory.ts'
import {unmountBelow} from '../mount/mounts.ts'
import type {ImageRecord} from '../oci/image-store.ts'
import type {ImageConfig} from '../oci/manifest.ts'
import type {Platform} from '../oci/platform.ts'
import {readTextInRoot} from '../rootfs/rooted-path.ts'
import {resolveUser} from '../runc/image-user.ts'
import {addNetwork, removeNetworks} from '../runc/network.ts'
import {buildRuntimeSpec, type RuntimeSpec, type SpecMount} from '../runc/runtime-spec.ts'
import type {WorkloadOptions} from '../runc/workload.ts'
import {attachTerminal, forwardSignals, resizeTerminal} from '../terminal/terminal.ts'
import {runSpecFrom} from './run-spec.ts'

export interface RunOptions {
  readonly id: string
  readonly image: ImageRecord
  readonly platform: Platform
  readonly workload: WorkloadOptions
  readonly labels: Labels
  readonly snapshotter: string
  readonly runtime: string
  readonly remove: boolean
  readonly detach: boolean
  readonly nullIo: boolean
  readonly readOnly: boolean
  readonly privileged: boolean
  readonly fifoDirectory: string
  readonly pidFile?: string | undefined
  readonly cidFile?: string | undefined
  readonly signal: AbortSignal
}

/** Label that tells others how to stop a container. */
const STOP_SIGNAL = 'io.containerd.image.config.stop-signal'
/** Largest /etc/passwd or /etc/group read, bytes. */
const MAX_ACCOUNT_FILE = 4 * 1024 * 1024
/** Where the networks of containers are remembered, so that they can be taken down; cleared when the machine starts. */
const NETWORK_DIRECTORY = '/run/ctr-remote/networks'

/**
 * Runs a container and resolves to its exit code, or to undefined when it runs on detached. Whatever fails before it has
 * started leaves nothing behind; afterwards the task goes with its process, the container with `remove`.
 */
export async function runContainer(store: ContainerdStore, options: RunOptions): Promise<number | undefined> {
  const {id, signal} = options
  if (await hasContainer(store, id, {signal})) {
    throw new CodedError('already-exists', `Cannot run "${id}": there is a container of this name`)
  }
  await using _lease = await store.lease({signal})
  const {config, parent} = await prepareImage(store, options)
  await using container = new AsyncDisposableStack()
  await using running = new AsyncDisposableStack()
  const {image, runtime, snapshotter} = options
  const mounts = await createSnapshot(store, {snapshotter, key: id, parent, writable: true, signal})
  container.defer(() => removeSnapshot(store, snapshotter, id))
  const spec = await prepareSpec(config, mounts, running, options, store.client.namespace)
  const labels = {
    ...config.config?.Labels,
    [STOP_SIGNAL]: config.config?.StopSignal ?? 'SIGTERM',
    ...options.labels,
  }
  const record = {id, image: image.name, labels, runtime, snapshotter, snapshotKey: id, spec}
  await createContainer(store, record, {signal})
  container.defer(() => deleteContainer(store, id))
  if (options.cidFile) await writeCidFile(options.cidFile, id)
  const exitCode = await runTask(store, mounts, running, options)
  if (options.detach) running.move()
  if (!options.remove) container.move()
  return exitCode
}

type Mounts = Awaited<ReturnType<typeof createSnapshot>>

/** The image's config, and its topmost snapshot: unpacked now if that was never done with this snapshotter. */
async function prepareImage(
  store: ContainerdStore,
  {image, platform, snapshotter, signal}: RunOptions,
): Promise<{readonly config: ImageConfig; readonly parent: string}> {
  const tree = await readImageTree(store.content, image.target, [platform], {signal})
  const {manifest} = tree.manifests[0]!
  const config = await readConfig(store.content, manifest, {signal})
  return {config, parent: await unpackImage(store, {snapshotter, manifest, config, signal})}
}

async function prepareSpec(
  config: ImageConfig,
  mounts: Mounts,
  running: AsyncDisposableStack,
  options: RunOptions,
  namespace: string,
): Promise<RuntimeSpec> {
  const {id, workload, signal} = options
  const run = config.config ?? {}
  const accounts = await readAccounts(mounts, signal)
  const network = async () => {
    if (workload.netHost) return 'host' as const
    if (!workload.cni) return 'private' as const
    const directory = join(NETWORK_DIRECTORY, `${namespace}-${id}`)
    await removeNetworks(directory)
    await mkdir(directory, {recursive: true, mode: 0o700})
    running.defer(async () => {
      await removeNetworks(directory)
      await rm(directory, {recursive: true, force: true})
    })
    return addNetwork(directory, id, workload.cni, {signal})
  }
  const sandbox = buildRuntimeSpec(run, workload, {
    id,
    // Relative to the bundle, which is the shim's.
    rootfs: 'rootfs',
    user: resolveUser(workload.user ?? run.User ?? '', accounts),
    network: await network(),
    files: workload.netHost ? HOST_FILES : [],
    // Loaded here: its parsers would be most of what a run without GPUs loads.
    edits: workload.gpus ? await (await import('../runc/cdi.ts')).resolveGpus(workload.gpus) : undefined,
  })
  return runSpecFrom(sandbox, {...options, namespace})
}

const HOST_FILES: readonly SpecMount[] = ['/etc/hosts', '/etc/resolv.conf'].map(path => ({
  destination: path,
  source: path,
  type: 'bind',
  options: ['rbind', 'ro'],
}))

/** The image's account files, read where they are: in its mounted root file system. */
async function readAccounts(mounts: Mounts, signal: AbortSignal): Promise<{passwd: string; group: string}> {
  const directory = await makeTemporaryDirectory(tmpdir(), 'ctr-remote-rootfs-')
  try {
    await mountSnapshot(mounts, directory, {readOnly: true, signal})
    const read = (path: string) => readTextInRoot(directory, path, MAX_ACCOUNT_FILE)
    return {passwd: await read('/etc/passwd'), group: await read('/etc/group')}
  } finally {
    await unmountBelow(directory)
    await rmdir(directory)
  }
}

async function writeCidFile(path: string, id: string): Promise<void> {
  await writeFile(path, id, {flag: 'wx'}).catch(cause => {
    throw new CodedError('already-exists', `Cannot write the container's id to "${path}"`, {cause})
  })
}

/** Creates and starts the task; in the foreground, waits for it. */
async function runTask(
  store: ContainerdStore,
  rootfs: Mounts,
  running: AsyncDisposableStack,
  options: RunOptions,
): Promise<number | undefined> {
  const {id, signal, nullIo, detach} = options
  const terminal = options.workload.terminal ?? false
  const directory = options.fifoDirectory
  const streams = nullIo
    ? undefined
    : running.use(
        await createTaskStreams({directory, id, terminal, attached: detach ? undefined : process, signal}),
      )
  const task = await createTask(store, id, {rootfs, terminal, streams: streams?.paths ?? NO_STREAMS, signal})
  running.defer(() => destroyTask(store, id))
  // Asked before it starts, so that the end of a short task is not missed.
  const exited = task.wait()
  exited.catch(() => {})
  if (options.pidFile) await writeOutput(options.pidFile, String(task.pid))
  // Before it starts: whoever sees its first output may signal it, and it asks for its terminal's size first of all.
  using _signals = detach ? undefined : forwardSignals(task)
  using _terminal = terminal && !detach ? attachTerminal(task) : undefined
  if (_terminal) await resizeTerminal(task)
  await task.start({signal})
  return detach ? undefined : await attend(task, exited, streams, options)
}

/** Passes streams on until the task has ended. */
async function attend(
  task: Task,
  exited: Promise<number>,
  streams: TaskStreams | undefined,
  options: RunOptions,
): Promise<number> {
  const {signal} = options
  const input = streams?.copyInput(process.stdin, {}).then(() => task.closeInput())
  input?.catch(() => {})
  const aborted = Promise.withResolvers<never>()
  const abort = () => aborted.reject(signal.reason)
  signal.addEventListener('abort', abort, {once: true})
  try {
    signal.throwIfAborted()
    const exitCode = await Promise.race([exited, aborted.promise])
    await streams?.outputEnded
    return exitCode
  } finally {
    signal.removeEventListener('abort', abort)
  }
}
