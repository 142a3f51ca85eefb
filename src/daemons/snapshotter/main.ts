// The composition root: what the daemon consists of, and in which order it starts and ends.

import {join} from 'node:path'
import {CodedError, codeOf, describeError} from '../../lib/errors/coded-error.ts'
import {type LayerObserver, SILENT_OBSERVER} from '../../lib/layer/layer-observer.ts'
import {layerDigestIn} from '../../lib/layer/layer-request.ts'
import type {LazyLayerMounter} from '../../lib/layer/lazy-layer-status.ts'
import {StartRecorder} from '../../lib/layer/start-recorder.ts'
import {tryOverlay} from '../../lib/mount/overlay-trial.ts'
import type {SnapshotDisk} from '../../lib/snapshot/ports.ts'
import {createSnapshotter, type Snapshotter} from '../../lib/snapshot/snapshotter.ts'
import type {SnapshotterConfig} from '../lazy-layers/config.ts'
import {tellingAll, tellingLog} from '../lazy-layers/event-log.ts'
import {givingMemoryBack} from '../lazy-layers/memory.ts'
import {type LazyLayers, openLazyLayers} from '../lazy-layers/open-lazy-layers.ts'
import {inodeOptionsOfThisMachine, overlayOptionsOfThisMachine} from '../lazy-layers/overlay-options.ts'
import {readConfig} from '../lazy-layers/read-config.ts'
import {openKeychains, registryOptions} from '../lazy-layers/registry-options.ts'
import {serveLazyLayers} from '../lazy-layers/status-service.ts'
import {createGrpcServer, type GrpcServer} from '../process/grpc-server.ts'
import {serveDebug, serveMetrics} from '../process/http-endpoints.ts'
import {makeWayForSocket} from '../process/listen-socket.ts'
import type {Log} from '../process/log.ts'
import {makeRoot} from '../process/make-root.ts'
import type {DaemonOptions} from '../process/run-daemon.ts'
import {ServiceState} from '../process/service-state.ts'
import {type StopSignal, stopSignalOf} from '../process/stop-request.ts'
import {type CriKeychain, createCriKeychain} from './cri-keychain.ts'
import {type DaemonFlags, DEFAULT_CONFIG} from './flags.ts'
import {MountSight} from './mount-sight.ts'
import {serveSnapshots} from './snapshots-service.ts'
import {openState, type State} from './state.ts'

/** Runs until stopped. SIGTERM leaves what is mounted, for the next daemon; SIGINT unmounts it. */
export async function runSnapshotter(options: DaemonOptions<DaemonFlags>): Promise<void> {
  const {log, env, stop} = options
  const config = await readConfig(options.flags.config, {
    mayBeMissing: options.flags.config === DEFAULT_CONFIG,
    log,
  })
  const flags = {...options.flags, root: await makeRoot(options.flags.root)}
  // The table is the lock on the root directory: it comes before everything that a second daemon must not touch.
  using state = await openState(flags.root)
  const overlayOptions = await tryOverlay(join(flags.root, 'snapshotter'), {
    always: overlayOptionsOfThisMachine(),
    wanted: config.oneDevice ? inodeOptionsOfThisMachine() : [],
  })
  await makeWayForSocket(flags.address)
  // What mounts layers needs credentials, and these live as long as something of their image is mounted.
  let imagesInUse = (): Iterable<string> => []
  using cri =
    config.criKeychain && createCriKeychain(config.criKeychain.imageServicePath, () => imagesInUse())
  await using keychains = await openKeychains(config, {env, log, told: cri})
  // Loaded only where wanted, as other parts that most daemons do without: they would take memory all the same.
  const metrics =
    config.metricsAddress === undefined
      ? undefined
      : (await import('../lazy-layers/metrics.ts')).createMetrics()
  // Before anything is mounted: an address that cannot be had must leave no mounts behind.
  const service = new ServiceState(env.NOTIFY_SOCKET, log)
  await using _metrics = metrics && (await serveMetrics(config.metricsAddress!, metrics, service))
  await using _debug = config.debugAddress === undefined ? undefined : await serveDebug(config.debugAddress)
  await using _cri = await serveCri(cri, {config, flags, log})
  const starts = new StartRecorder()
  const observer = givingMemoryBack(
    tellingAll(metrics?.observer ?? SILENT_OBSERVER, starts, tellingLog(log, starts)),
  )
  const registry = registryOptions(config, {keychain: keychains.all, env, program: 'containerd-stargz-grpc'})
  const mountpoints = ['data', 'trees'].map(name => join(flags.root, 'stargz', name))
  const sight = new MountSight({mountpoints, log})
  const {root} = flags
  const {mounter, tidy, prune} = await openLazyLayers({
    config,
    root,
    log,
    env,
    observer,
    registry,
    requireUse: sight.require,
  })
  imagesInUse = () => mounter.references()
  let how: 'leave' | 'unmount' = 'leave'
  try {
    metrics?.follow(() => mounter.status())
    const disk = diskOf(state, tidy)
    const snapshotter = createSnapshotter({
      ...state,
      mounter,
      disk,
      overlayOptions,
      log,
      now: () => new Date(),
    })
    await sight.lookAtStart()
    await restoreMounts(snapshotter, config, {log, signal: stop})
    mounter.resume()
    const signal = await serve(
      {config, flags, log, service, stop},
      {snapshotter, mounter, prune, cri, sight, observer, starts},
    )
    if (signal === 'SIGINT') {
      how = 'unmount'
      await snapshotter.unmountAll()
    }
  } finally {
    await mounter.close(how)
  }
}

/** On a full disk, layers that nobody uses go, and the ballast for as long as that is not enough. */
function diskOf({ballast}: State, tidy: LazyLayers['tidy']): SnapshotDisk {
  return {
    makeRoom: async () => {
      ballast.release()
      await tidy()
    },
    tidy: async () => {
      await tidy()
      await ballast.restore()
    },
  }
}

interface ServeOptions extends Omit<DaemonOptions<DaemonFlags>, 'env'> {
  readonly config: SnapshotterConfig
  readonly service: ServiceState
}

interface Served {
  readonly snapshotter: Snapshotter
  readonly mounter: LazyLayerMounter
  readonly prune: LazyLayers['prune']
  readonly cri: CriKeychain | undefined
  readonly sight: MountSight
  readonly observer: LayerObserver
  readonly starts: StartRecorder
}

/** Answers requests until stopped; resolves to what stopped it, when everybody has had an answer. */
async function serve(options: ServeOptions, served: Served): Promise<StopSignal> {
  const {snapshotter, mounter, prune, cri, sight, observer, starts} = served
  const {config, flags, log, service, stop} = options
  await using server = openServer(log)
  serveSnapshots(server, snapshotter, {
    onCaller: caller => sight.look(caller),
    onPrepared: (labels, durationMs) => {
      const layer = layerDigestIn(labels)
      if (layer !== undefined) observer.event('prepared', {layer, durationMs})
    },
  })
  serveLazyLayers(server, {
    status: () => mounter.status(),
    starts: () => starts.starts(),
    announce: labels => mounter.announce(labels),
    prune,
  })
  if (criPath(config, flags) === flags.address) cri?.serve(server)
  await server.listen(flags.address)
  log.info({address: flags.address, root: flags.root}, 'serving snapshots')
  service.ready()
  const signal = await stopSignalOf(stop)
  log.info({signal}, 'stopping')
  service.stopping()
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
