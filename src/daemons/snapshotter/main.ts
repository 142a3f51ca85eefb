// The composition root: what the daemon consists of, and in which order it starts and ends.

import {CodedError, codeOf, describeError} from '../../lib/errors/coded-error.ts'
import {SILENT_OBSERVER} from '../../lib/snapshot/layer-observer.ts'
import type {LazyLayerMounter} from '../../lib/snapshot/lazy-layer-status.ts'
import {createSnapshotter, type Snapshotter} from '../../lib/snapshot/snapshotter.ts'
import {createGrpcServer, type GrpcServer} from '../grpc-server.ts'
import {loadConfig, type SnapshotterConfig} from './config.ts'
import type {CriKeychain} from './cri-keychain.ts'
import {type DaemonFlags, DEFAULT_CONFIG} from './flags.ts'
import {serveDebug, serveMetrics} from './http-endpoints.ts'
import {makeWayForSocket} from './listen-socket.ts'
import type {Log} from './log.ts'
import {givingMemoryBack} from './memory.ts'
import {createMounter} from './mounter.ts'
import {createNotify, type Notify} from './notify.ts'
import {overlayOptionsOfThisMachine} from './overlay-options.ts'
import {openKeychains, registryOptions} from './registry.ts'
import {serveSnapshots} from './snapshots-service.ts'
import {makeRoot, openState} from './state.ts'
import {serveLazyLayers} from './status-service.ts'

/** What ends the daemon. */
export type StopSignal = 'SIGTERM' | 'SIGINT'

export interface DaemonOptions {
  readonly flags: DaemonFlags
  readonly log: Log
  readonly env: Readonly<Record<string, string | undefined>>
  /** Aborted when the daemon is to end, with a `StopRequest` as its reason. */
  readonly stop: AbortSignal
}

/** Why a daemon's signal is aborted. */
export class StopRequest extends CodedError {
  readonly signal: StopSignal

  constructor(signal: StopSignal) {
    super('cancelled', `Stopped by ${signal}`)
    this.signal = signal
  }
}

/** Runs until stopped. SIGTERM leaves what is mounted, for the next daemon; SIGINT unmounts it. */
export async function runSnapshotter(options: DaemonOptions): Promise<void> {
  const {log, env, stop} = options
  const config = await readConfig(options.flags, log)
  const flags = {...options.flags, root: await makeRoot(options.flags.root)}
  // The table is the lock on the root directory: it comes before everything that a second daemon must not touch.
  using state = await openState(flags.root)
  await makeWayForSocket(flags.address)
  await using keychains = await openKeychains(config, env, log)
  // Loaded only where wanted, as other parts that most daemons do without: they would take memory all the same.
  const metrics =
    config.metricsAddress === undefined ? undefined : (await import('./metrics.ts')).createMetrics()
  // Before anything is mounted: an address that cannot be had must leave no mounts behind.
  await using _metrics = metrics && (await serveMetrics(config.metricsAddress!, metrics))
  await using _debug = config.debugAddress === undefined ? undefined : await serveDebug(config.debugAddress)
  await using _cri = await serveCri(keychains.cri, {config, flags, log})
  const observer = givingMemoryBack(metrics?.observer ?? SILENT_OBSERVER)
  const registry = registryOptions(config, keychains.all, env)
  const mounter = await createMounter({config, flags, log, observer, registry})
  let how: 'leave' | 'unmount' = 'leave'
  try {
    metrics?.follow(() => mounter.status())
    const overlayOptions = overlayOptionsOfThisMachine()
    const snapshotter = createSnapshotter({...state, mounter, overlayOptions, log, now: () => new Date()})
    await restoreMounts(snapshotter, config, {log, signal: stop})
    mounter.resume()
    const notify = createNotify(env.NOTIFY_SOCKET, log)
    const signal = await serve({config, flags, log, notify, stop}, {snapshotter, mounter, cri: keychains.cri})
    if (signal === 'SIGINT') {
      how = 'unmount'
      await snapshotter.unmountAll()
    }
  } finally {
    await mounter.close(how)
  }
}

interface ServeOptions extends Omit<DaemonOptions, 'env'> {
  readonly config: SnapshotterConfig
  readonly notify: Notify
}

interface Served {
  readonly snapshotter: Snapshotter
  readonly mounter: LazyLayerMounter
  readonly cri: CriKeychain | undefined
}

/** Answers requests until stopped; resolves to what stopped it, when everybody has had an answer. */
async function serve(options: ServeOptions, {snapshotter, mounter, cri}: Served): Promise<StopSignal> {
  const {config, flags, log, notify, stop} = options
  await using server = openServer(log)
  serveSnapshots(server, snapshotter)
  serveLazyLayers(server, () => mounter.status())
  if (criPath(config, flags) === flags.address) cri?.serve(server)
  await server.listen(flags.address)
  log.info({address: flags.address, root: flags.root}, 'serving snapshots')
  notify('READY=1')
  const signal = await stopSignalOf(stop)
  log.info({signal}, 'stopping')
  notify('STOPPING=1')
  return signal
}

/** The image service on a socket of its own, where it has one. */
async function serveCri(
  cri: CriKeychain | undefined,
  {config, flags, log}: Pick<ServeOptions, 'config' | 'flags' | 'log'>,
): Promise<GrpcServer | undefined> {
  const path = criPath(config, flags)
  if (!cri || path === flags.address) return undefined
  await makeWayForSocket(path)
  const server = openServer(log)
  cri.serve(server)
  await server.listen(path)
  return server
}

function criPath(config: SnapshotterConfig, flags: DaemonFlags): string {
  return config.criKeychain?.listenPath || flags.address
}

function openServer(log: Log): GrpcServer {
  return createGrpcServer((method, error) => {
    const code = codeOf(error)
    // How a remote snapshotter says that a layer is there.
    if (code === 'already-exists') return
    log[code === 'internal' ? 'error' : 'debug'](
      {method, code, error: describeError(error)},
      'request failed',
    )
  })
}

async function readConfig(flags: DaemonFlags, log: Log): Promise<SnapshotterConfig> {
  const mayBeMissing = flags.config === DEFAULT_CONFIG
  const {config, unknownKeys, withoutEffect} = await loadConfig(flags.config, mayBeMissing)
  for (const key of unknownKeys) log.warn({key, config: flags.config}, 'unknown key in the configuration')
  for (const {key, reason} of withoutEffect) {
    log.warn({key, reason, config: flags.config}, 'key of the configuration has no effect')
  }
  if (config.debug) log.level = 'debug'
  return config
}

/** Makes the layers of the last run readable again; throws `unavailable` when that is a condition and fails. */
async function restoreMounts(
  snapshotter: Snapshotter,
  config: SnapshotterConfig,
  {log, signal}: {readonly log: Log; readonly signal: AbortSignal},
): Promise<void> {
  const failed = await snapshotter.restore(signal)
  signal.throwIfAborted()
  if (failed.length === 0) return
  if (config.allowInvalidMountsOnRestart) {
    log.warn(
      {snapshots: failed},
      'some remote snapshots could not be restored: they are tried again when they are used, or remove them manually',
    )
    return
  }
  throw new CodedError(
    'unavailable',
    `Cannot restore remote snapshots ${failed.map(name => `"${name}"`).join(', ')}; with "snapshotter.allow_invalid_mounts_on_restart" in the configuration the daemon starts without them, and they can be removed`,
  )
}

function stopSignalOf(stop: AbortSignal): Promise<StopSignal> {
  return new Promise(resolve => {
    const done = () => resolve(stop.reason instanceof StopRequest ? stop.reason.signal : 'SIGTERM')
    if (stop.aborted) done()
    else stop.addEventListener('abort', done, {once: true})
  })
}
