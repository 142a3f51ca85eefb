// Finds out which files of an image a workload reads, and in what order: the workload runs in a sandbox on the image's
// own layers while its file accesses are traced, and each accessed path is mapped to the layer that it comes from.

import {mkdir, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {setTimeout} from 'node:timers/promises'
import {CodedError} from '../errors/coded-error.ts'
import type {ProgressSink} from '../io/progress.ts'
import {unmountBelow} from '../mount/mounts.ts'
import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import type {Digest} from '../oci/digest.ts'
import type {ImageConfig, ImageManifest, RunConfig} from '../oci/manifest.ts'
import type {LayerReads} from '../prefetch/read-ranges.ts'
import {cleanPath} from '../record/clean-path.ts'
import type {RecordEntry} from '../record/record-file.ts'
import {type ImageRootfs, mountImageRootfs} from '../rootfs/image-rootfs.ts'
import {readTextInRoot} from '../rootfs/rooted-path.ts'
import type {resolveGpus} from '../runc/cdi.ts'
import {type RunningContainer, removeContainers, startContainer} from '../runc/container.ts'
import {hostsFile, resolvConfFile} from '../runc/etc-files.ts'
import {resolveUser} from '../runc/image-user.ts'
import {addNetwork, removeNetworks} from '../runc/network.ts'
import {
  buildRuntimeSpec,
  type NetworkNamespace,
  type RuntimeSpec,
  type SpecMount,
} from '../runc/runtime-spec.ts'
import type {WorkloadOptions} from '../runc/workload.ts'
import type {MemoryCare} from '../tar/memory-care.ts'
import {startAccessTracer, type Trace} from '../tracer/access-tracer.ts'
import {removePageTracer} from '../tracer/page-tracer.ts'
import {type OpenedFile, type ReadWatch, watchReads} from './file-reads.ts'
import {type LayerMap, mapLayers} from './layer-map.ts'
import {makeSandboxDirectory, type SandboxDirectory} from './sandbox-directory.ts'
import {type StopReason, stopWhen} from './stop-when.ts'

/** The image to run: one manifest of one platform, which must be the host's. */
export interface ProfiledImage {
  readonly content: ContentStore
  readonly manifestDigest: Digest
  readonly manifest: ImageManifest
  readonly config: ImageConfig
}

export interface ProfileOptions extends CallOptions {
  readonly workload: WorkloadOptions
  /** Seconds after which the workload is stopped; ignored with `stopSignal`. */
  readonly periodSeconds: number
  /** Stops the workload when a line of its standard output contains this. */
  readonly waitOnLine?: string | undefined
  /** Stops the workload, and not the profiling, when it aborts (`--wait-on-signal`). */
  readonly stopSignal?: AbortSignal | undefined
  /** For the decompressed layers; cleaned up whatever happens. */
  readonly sandboxRoot: string
  /** Bytes to which a layer may decompress at most; undefined for what the sandbox has room for. */
  readonly maxLayerSize?: number | undefined
  readonly memoryCare?: MemoryCare | undefined
  readonly onProgress?: ProgressSink | undefined
  /** In the place of the real tracer and of this machine's CDI devices: tests break into a run by these. */
  readonly startTracer?: typeof startAccessTracer
  readonly resolveGpus?: typeof resolveGpus
}

export interface Profile {
  /** For each layer, lowest first, the names of its accessed files in order of first access. */
  readonly layers: readonly (readonly string[])[]
  /** For each layer, which parts of its files; undefined where the kernel does not tell, and `warnings` say so. */
  readonly reads: readonly LayerReads[] | undefined
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
  await using sandbox = await makeSandboxDirectory(options.sandboxRoot, [
    removeContainers,
    removeNetworks,
    removePageTracer,
    unmountBelow,
  ])
  options.onProgress?.({id: 'profile', label: 'workload', phase: 'running', note: 'unpacking'})
  const files = join(sandbox.path, 'files')
  await mkdir(files)
  const rootfs = await mountImageRootfs(image, files, options)
  // Before anything of the image is read: what is in the kernel's cache is not seen.
  const reads = await watchReads(sandbox.path, rootfs)
  const spec = await prepareSpec(image.config.config ?? {}, rootfs.path, sandbox, options)
  const startTracer = options.startTracer ?? startAccessTracer
  await using tracer = await startTracer(rootfs.path, options)
  options.onProgress?.({id: 'profile', label: 'workload', phase: 'running', note: 'running'})
  const run = await runWorkload(spec, image.config.config?.StopSignal, sandbox, options)
  const trace = await tracer.finish()
  const profile = await profileOf(image, {rootfs, trace, reads, run, mounts: spec.mounts}, options)
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
  const {workload} = options
  const accounts = {
    passwd: await readTextInRoot(rootfs, '/etc/passwd', MAX_ACCOUNT_FILE),
    group: await readTextInRoot(rootfs, '/etc/group', MAX_ACCOUNT_FILE),
  }
  return buildRuntimeSpec(config, workload, {
    id: sandbox.id,
    rootfs,
    user: resolveUser(workload.user ?? config.User ?? '', accounts),
    network: await prepareNetwork(sandbox, options),
    files: await prepareFiles(sandbox, options),
    edits: workload.gpus ? await findGpus(workload.gpus, options) : undefined,
  })
}

/** Loaded here: few workloads want GPUs, and its parsers are large. */
async function findGpus(
  gpus: Parameters<typeof resolveGpus>[0],
  options: ProfileOptions,
): ReturnType<typeof resolveGpus> {
  const resolve = options.resolveGpus ?? (await import('../runc/cdi.ts')).resolveGpus
  return resolve(gpus)
}

async function prepareNetwork(sandbox: SandboxDirectory, options: ProfileOptions): Promise<NetworkNamespace> {
  const {cni, netHost} = options.workload
  if (netHost) return 'host'
  return cni ? addNetwork(sandbox.path, sandbox.id, cni, options) : 'private'
}

/** `/etc/hosts` and `/etc/resolv.conf`: the host's own with its network, generated ones otherwise. */
async function prepareFiles(sandbox: SandboxDirectory, options: ProfileOptions): Promise<SpecMount[]> {
  const {workload} = options
  const bind = (source: string, destination: string): SpecMount => ({
    destination,
    source,
    type: 'bind',
    options: ['rbind', 'ro'],
  })
  if (workload.netHost) return ['/etc/hosts', '/etc/resolv.conf'].map(path => bind(path, path))
  const hosts = join(sandbox.path, 'hosts')
  const resolvConf = join(sandbox.path, 'resolv.conf')
  await writeFile(hosts, hostsFile(sandbox.id, workload.addHosts ?? []), {mode: 0o644})
  await writeFile(resolvConf, resolvConfFile(workload), {mode: 0o644})
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
  const {workload} = options
  using stop = stopWhen(options)
  const startedAt = performance.now()
  const container = await startContainer({
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
  readonly reads: ReadWatch
  readonly run: WorkloadRun
  readonly mounts: readonly SpecMount[]
}

async function profileOf(
  image: ProfiledImage,
  {rootfs, trace, reads, run, mounts}: Findings,
  options: ProfileOptions,
): Promise<Profile> {
  const map = mapLayers(rootfs.layers)
  const layers = rootfs.layers.map(() => new Set<string>())
  const record: RecordEntry[] = []
  const files: OpenedFile[] = []
  for (const path of trace.paths.map(cleanPath)) {
    const file = path === undefined || isMountedOver(path, mounts) ? undefined : locateAccess(map, path)
    // What the workload wrote itself is in no layer. A file that it changed is traced again as its copy.
    if (!file || layers[file.layerIndex]!.has(file.name)) continue
    layers[file.layerIndex]!.add(file.name)
    files.push(file)
    record.push({path: file.name, manifestDigest: image.manifestDigest, layerIndex: file.layerIndex})
  }
  const ranges = await reads.finish(files)
  const withReads = record.map(entry => {
    const own = ranges?.[entry.layerIndex!]
    return own ? {...entry, reads: own.get(entry.path) ?? []} : entry
  })
  const warnings = warningsOf(trace, run, record.length, options)
  if (reads.problem) warnings.push(`whole files come first, not what is read of them: ${reads.problem}`)
  return {layers: layers.map(names => [...names]), reads: ranges, record: withReads, ...run, warnings}
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
function locateAccess(map: LayerMap, path: string): OpenedFile | undefined {
  const file = map.locate(path)
  if (file) return {...file, path}
  return path.endsWith(DELETED) ? locateAccess(map, path.slice(0, -DELETED.length)) : undefined
}

const DELETED = ' (deleted)'
