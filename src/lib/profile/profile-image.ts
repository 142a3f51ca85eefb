// Finds out which files of an image a workload reads, and in what order: the workload runs in a sandbox on the image's
// own layers while its file accesses are traced, and each accessed path is mapped to the layer that it comes from.

import {mkdir, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {setTimeout} from 'node:timers/promises'
import {CodedError} from '../errors/coded-error.ts'
import type {ProgressSink} from '../io/progress.ts'
import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import type {Digest} from '../oci/digest.ts'
import type {ImageConfig, ImageManifest, RunConfig} from '../oci/manifest.ts'
import {cleanPath} from '../record/clean-path.ts'
import type {RecordEntry} from '../record/record-file.ts'
import type {ImageRootfs, RootfsSource} from '../rootfs/image-rootfs.ts'
import type {ContainerOptions, RunningContainer} from '../runc/container.ts'
import type {AccountFiles, ProcessUser} from '../runc/image-user.ts'
import type {
  DeviceEdits,
  NetworkNamespace,
  RuntimeSpec,
  SandboxFacts,
  SpecMount,
} from '../runc/runtime-spec.ts'
import type {CniOptions, GpuSelection, WorkloadOptions} from '../runc/workload.ts'
import type {AccessTracer, Trace} from '../tracer/access-tracer.ts'
import {type LayerMap, type LocatedFile, mapLayers} from './layer-map.ts'
import {makeSandboxDirectory, type SandboxDirectory} from './sandbox-directory.ts'
import {type StopReason, stopWhen} from './stop-when.ts'

/** What profiling needs of the machine. */
export interface ProfilingAdapters {
  mountRootfs(source: RootfsSource, directory: string, options: CallOptions): Promise<ImageRootfs>
  /** Unmounts everything below a directory. */
  unmountBelow(directory: string): Promise<void>
  readTextInRoot(root: string, path: string, limit: number): Promise<string>
  startTracer(directory: string, options: CallOptions): Promise<AccessTracer>
  startContainer(options: ContainerOptions): Promise<RunningContainer>
  removeContainers(directory: string): Promise<void>
  addNetwork(
    directory: string,
    id: string,
    cni: CniOptions,
    options: CallOptions,
  ): Promise<{readonly path: string}>
  removeNetworks(directory: string): Promise<void>
  resolveGpus(selection: GpuSelection): Promise<DeviceEdits>
  resolveUser(user: string, files: AccountFiles): ProcessUser
  buildRuntimeSpec(image: RunConfig, workload: WorkloadOptions, facts: SandboxFacts): RuntimeSpec
  hostsFile(hostname: string, additions: NonNullable<WorkloadOptions['addHosts']>): string
  resolvConfFile(workload: WorkloadOptions): string
}

/** The image to run: one manifest of one platform, which must be the host's. */
export interface ProfiledImage {
  readonly content: ContentStore
  readonly manifestDigest: Digest
  readonly manifest: ImageManifest
  readonly config: ImageConfig
}

export interface ProfileOptions extends CallOptions {
  readonly adapters: ProfilingAdapters
  readonly workload: WorkloadOptions
  /** Seconds after which the workload is stopped; ignored with `stopSignal`. */
  readonly periodSeconds: number
  /** Stops the workload when a line of its standard output contains this. */
  readonly waitOnLine?: string | undefined
  /** Stops the workload, and not the profiling, when it aborts (`--wait-on-signal`). */
  readonly stopSignal?: AbortSignal | undefined
  /** For the decompressed layers; cleaned up whatever happens. */
  readonly sandboxRoot: string
  readonly onProgress?: ProgressSink | undefined
}

export interface Profile {
  /** For each layer, lowest first, the names of its accessed files in order of first access. */
  readonly layers: readonly (readonly string[])[]
  /** The same in the order of access across layers: what `--record-out` writes. */
  readonly record: readonly RecordEntry[]
  readonly stopped: Exclude<StopReason, 'aborted'>
  /** How long the workload ran. */
  readonly durationMs: number
  /** Of a workload that ended by itself. */
  readonly exitCode: number | undefined
  /** For people: what may have made the profile incomplete. */
  readonly warnings: readonly string[]
}

/** Account files of images are small; bytes. */
const MAX_ACCOUNT_FILE = 4 << 20
/** How long a workload may take to obey its stop signal. */
const STOP_GRACE_MS = 5000

/**
 * Runs the workload and resolves to its profile. Throws `failed-precondition` with the workload's words when it cannot
 * be started, and whatever reading the layers throws. Nothing of the sandbox is left behind.
 */
export async function profileImage(image: ProfiledImage, options: ProfileOptions): Promise<Profile> {
  const {adapters} = options
  await using sandbox = await makeSandboxDirectory(options.sandboxRoot, [
    adapters.removeContainers,
    adapters.removeNetworks,
    adapters.unmountBelow,
  ])
  options.onProgress?.({id: 'profile', label: 'workload', phase: 'running', note: 'unpacking'})
  const files = join(sandbox.path, 'files')
  await mkdir(files)
  const rootfs = await adapters.mountRootfs(image, files, options)
  const spec = await prepareSpec(image.config.config ?? {}, rootfs.path, sandbox, options)
  await using tracer = await adapters.startTracer(rootfs.path, options)
  options.onProgress?.({id: 'profile', label: 'workload', phase: 'running', note: 'running'})
  const run = await runWorkload(spec, image.config.config?.StopSignal, sandbox, options)
  const trace = await tracer.finish()
  const profile = profileOf(image, {rootfs, trace, run, mounts: spec.mounts}, options)
  const note = `${profile.record.length} files read`
  options.onProgress?.({id: 'profile', label: 'workload', phase: 'done', note})
  return profile
}

async function prepareSpec(
  config: RunConfig,
  rootfs: string,
  sandbox: SandboxDirectory,
  options: ProfileOptions,
): Promise<RuntimeSpec> {
  const {adapters, workload} = options
  const accounts = {
    passwd: await adapters.readTextInRoot(rootfs, '/etc/passwd', MAX_ACCOUNT_FILE),
    group: await adapters.readTextInRoot(rootfs, '/etc/group', MAX_ACCOUNT_FILE),
  }
  return adapters.buildRuntimeSpec(config, workload, {
    id: sandbox.id,
    rootfs,
    user: adapters.resolveUser(workload.user ?? config.User ?? '', accounts),
    network: await prepareNetwork(sandbox, options),
    files: await prepareFiles(sandbox, options),
    edits: workload.gpus ? await adapters.resolveGpus(workload.gpus) : undefined,
  })
}

async function prepareNetwork(sandbox: SandboxDirectory, options: ProfileOptions): Promise<NetworkNamespace> {
  const {cni, netHost} = options.workload
  if (netHost) return 'host'
  return cni ? options.adapters.addNetwork(sandbox.path, sandbox.id, cni, options) : 'private'
}

/** `/etc/hosts` and `/etc/resolv.conf`: the host's own with its network, generated ones otherwise. */
async function prepareFiles(sandbox: SandboxDirectory, options: ProfileOptions): Promise<SpecMount[]> {
  const {adapters, workload} = options
  const bind = (source: string, destination: string): SpecMount => ({
    destination,
    source,
    type: 'bind',
    options: ['rbind', 'ro'],
  })
  if (workload.netHost) return ['/etc/hosts', '/etc/resolv.conf'].map(path => bind(path, path))
  const hosts = join(sandbox.path, 'hosts')
  const resolvConf = join(sandbox.path, 'resolv.conf')
  await writeFile(hosts, adapters.hostsFile(sandbox.id, workload.addHosts ?? []), {mode: 0o644})
  await writeFile(resolvConf, adapters.resolvConfFile(workload), {mode: 0o644})
  return [bind(hosts, '/etc/hosts'), bind(resolvConf, '/etc/resolv.conf')]
}

interface WorkloadRun {
  readonly stopped: Profile['stopped']
  readonly exitCode: number | undefined
  readonly durationMs: number
}

async function runWorkload(
  spec: RuntimeSpec,
  stopSignalName: string | undefined,
  sandbox: SandboxDirectory,
  options: ProfileOptions,
): Promise<WorkloadRun> {
  const {adapters, workload} = options
  using stop = stopWhen(options)
  const startedAt = performance.now()
  const container = await adapters.startContainer({
    directory: sandbox.path,
    id: sandbox.id,
    spec,
    stdin: workload.stdin,
    stdout: workload.stdout,
    stderr: workload.stderr,
    onStdout: stop.onStdout,
  })
  const exited = container.exited.then(({exitCode}) => ({stopped: 'exited' as const, exitCode}))
  const first = await Promise.race([exited, stop.reason.then(stopped => ({stopped, exitCode: undefined}))])
  const durationMs = Math.round(performance.now() - startedAt)
  if (first.stopped === 'aborted') await container.killAll()
  else if (first.stopped !== 'exited') await stopContainer(container, stopSignalName || 'KILL')
  options.signal?.throwIfAborted()
  if (first.stopped === 'aborted') throw new CodedError('cancelled', 'Cannot go on profiling: it was aborted')
  return {...first, stopped: first.stopped, durationMs}
}

/** Asks the workload to end, and kills it when it does not. */
async function stopContainer(container: RunningContainer, signalName: string): Promise<void> {
  await container.kill(signalName)
  const grace = new AbortController()
  const patience = setTimeout(STOP_GRACE_MS, 'late', {signal: grace.signal}).catch(() => undefined)
  // A workload that could not be started at all is an error, whatever stopped the waiting for it.
  const late = await Promise.race([container.exited, patience])
  grace.abort()
  if (late !== 'late') return
  await container.killAll()
  await container.exited
}

interface Findings {
  readonly rootfs: ImageRootfs
  readonly trace: Trace
  readonly run: WorkloadRun
  readonly mounts: readonly SpecMount[]
}

function profileOf(image: ProfiledImage, findings: Findings, options: ProfileOptions): Profile {
  const {rootfs, trace, run, mounts} = findings
  const map = mapLayers(rootfs.layers)
  const layers = rootfs.layers.map(() => new Set<string>())
  const record: RecordEntry[] = []
  for (const path of trace.paths.map(cleanPath)) {
    const file = path === undefined || isMountedOver(path, mounts) ? undefined : locateAccess(map, path)
    // What the workload wrote itself is in no layer. A file that it changed is traced again as its copy.
    if (!file || layers[file.layerIndex]!.has(file.name)) continue
    layers[file.layerIndex]!.add(file.name)
    record.push({path: file.name, manifestDigest: image.manifestDigest, layerIndex: file.layerIndex})
  }
  return {
    layers: layers.map(names => [...names]),
    record,
    ...run,
    warnings: warningsOf(trace, run, record.length, options),
  }
}

/** runc opens the image's own file when it mounts over it; the workload sees what is mounted there. */
function isMountedOver(path: string, mounts: readonly SpecMount[]): boolean {
  return mounts.some(({destination}) => {
    const point = cleanPath(destination)
    return point !== undefined && (path === point || path.startsWith(`${point}/`))
  })
}

function warningsOf(trace: Trace, run: WorkloadRun, files: number, options: ProfileOptions): string[] {
  const warnings: string[] = []
  if (trace.overflowed) warnings.push('the kernel dropped file accesses: the profile is incomplete')
  if (run.exitCode)
    warnings.push(`the workload ended with exit code ${run.exitCode}: the profile may be incomplete`)
  if (options.waitOnLine !== undefined && run.stopped !== 'line') {
    warnings.push(
      `the workload did not print ${JSON.stringify(options.waitOnLine)} before it was stopped or ended`,
    )
  }
  if (files === 0) warnings.push('the workload read no file of the image')
  return warnings
}

/**
 * Where an accessed path comes from. The kernel marks the path of a file that has been deleted since; on overlayfs its
 * link count does not tell.
 */
function locateAccess(map: LayerMap, path: string): LocatedFile | undefined {
  return map.locate(path) ?? (path.endsWith(DELETED) ? map.locate(path.slice(0, -DELETED.length)) : undefined)
}

const DELETED = ' (deleted)'
