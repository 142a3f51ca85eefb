// The composition root: what the layer store consists of, and in which order it starts and ends.

import {mkdir, rmdir} from 'node:fs/promises'
import {basename, dirname, join} from 'node:path'
import {codeOf, describeError} from '../../lib/errors/coded-error.ts'
import {openStoreFileSystem} from '../../lib/fuse-store/store-file-system.ts'
import {createGraphRoot} from '../../lib/graph-root/graph-root.ts'
import {SILENT_OBSERVER} from '../../lib/layer/layer-observer.ts'
import {StartRecorder} from '../../lib/layer/start-recorder.ts'
import {createImageLayers} from '../../lib/layer-store/image-layers.ts'
import {LayerStore} from '../../lib/layer-store/layer-store.ts'
import {createLayerStoreTree} from '../../lib/layer-store/layer-store-tree.ts'
import type {StoredImageTable} from '../../lib/layer-store/stored-image.ts'
import {StoredImages} from '../../lib/layer-store/stored-images.ts'
import type {StoredLayerTable} from '../../lib/layer-store/stored-layer.ts'
import {createToldCredentials, type ToldCredentials} from '../../lib/layer-store/told-credentials.ts'
import {detachAll, findMount} from '../../lib/mount/mount-table.ts'
import {mount} from '../../lib/native/system-calls.ts'
import {createRegistryImageSource} from '../../lib/registry/image.ts'
import {findRegistriesConf} from '../../lib/registry/registries-conf.ts'
import {Ballast} from '../../lib/state/ballast.ts'
import {openStoredImageTable} from '../../lib/state/sqlite-stored-images.ts'
import {openStoredLayerTable} from '../../lib/state/sqlite-stored-layers.ts'
import type {SnapshotterConfig} from '../lazy-layers/config.ts'
import {tellingAll, tellingLog} from '../lazy-layers/event-log.ts'
import {givingMemoryBack} from '../lazy-layers/memory.ts'
import {type LazyLayers, openLazyLayers} from '../lazy-layers/open-lazy-layers.ts'
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
import {serveControl} from './control-service.ts'
import {DEFAULT_CONFIG, type StoreFlags} from './flags.ts'
import {serveImages} from './images-service.ts'
import {forgetCredentials, keepCredentials, recallCredentials} from './kept-credentials.ts'
import {refuseUnverified} from './refuse-unverified.ts'
import {createUnpackedLayers} from './unpacked-layers.ts'

/** How long a look at a layer may take that must be opened first, milliseconds. */
const LOOK_DEADLINE_MS = 120_000

/** Runs until stopped. SIGTERM leaves what is mounted, for the next daemon; SIGINT unmounts it. */
export async function runLayerStore(options: DaemonOptions<StoreFlags>): Promise<void> {
  const {log, env} = options
  const config = await openConfig(options.flags, log)
  const flags = {
    ...options.flags,
    root: await makeRoot(options.flags.root),
    mountpoint: await resolveMountpoint(options.flags.mountpoint),
  }
  using ballast = new Ballast(join(flags.root, 'ballast'))
  const room = {onFull: () => ballast.release()}
  // The table is the lock on the root directory: it comes before everything that a second daemon must not touch.
  using table = openStoredLayerTable(join(flags.root, 'layers.db'), room)
  using imageTable = openStoredImageTable(join(flags.root, 'images.db'), room)
  await ballast.carry()
  await makeWayForSocket(flags.address)
  const told = createToldCredentials()
  await using keychains = await openKeychains(config, {env, log, told})
  const metrics =
    config.metricsAddress === undefined
      ? undefined
      : (await import('../lazy-layers/metrics.ts')).createMetrics()
  const state = new ServiceState(env.NOTIFY_SOCKET, log)
  await using _metrics = metrics && (await serveMetrics(config.metricsAddress!, metrics, state))
  await using _debug = config.debugAddress === undefined ? undefined : await serveDebug(config.debugAddress)
  const starts = new StartRecorder()
  const observer = givingMemoryBack(
    tellingAll(metrics?.observer ?? SILENT_OBSERVER, starts, tellingLog(log, starts)),
  )
  const registry = {
    ...registryOptions(config, {keychain: keychains.all, env, program: 'stargz-store'}),
    registriesConf: findRegistriesConf(env),
  }
  const layers = await openLazyLayers({config, root: flags.root, log, env, observer, registry})
  let how: 'leave' | 'unmount' = 'leave'
  try {
    await recallCredentials(told, {keeper: layers.keeper, log})
    const {store, images} = await openStores(layers, {root: flags.root, table, imageTable, log})
    metrics?.follow(() => layers.mounter.status())
    await store.restore({signal: options.stop})
    await images.restore()
    layers.mounter.resume()
    const signal = await serve({...options, flags}, {layers, store, images, told, starts, state})
    if (signal === 'SIGINT') {
      how = 'unmount'
      await store.unmountAll()
      await detachAll(mountsDirectory(flags.root))
      await forgetCredentials(layers.keeper)
    }
  } finally {
    await layers.mounter.close(how)
  }
}

/** Without looking at the mountpoint itself: what is mounted there may wait for us. */
async function resolveMountpoint(path: string): Promise<string> {
  return join(await makeRoot(dirname(path)), basename(path))
}

interface Tables {
  readonly root: string
  readonly table: StoredLayerTable
  readonly imageTable: StoredImageTable
  readonly log: Log
}

interface Stores {
  readonly store: LayerStore
  readonly images: StoredImages
}

/** The layers, and the images of them that are shown as an additional image store. */
async function openStores(
  {mounter, origin, registry}: LazyLayers,
  {root, table, imageTable, log}: Tables,
): Promise<Stores> {
  const directory = mountsDirectory(root)
  await mountOwnDirectory(directory)
  const openImage = (reference: string) => createRegistryImageSource(reference, {registry})
  const store = new LayerStore({
    directory,
    table,
    mounter,
    images: createImageLayers({openImage, now: () => performance.now()}),
    blobOf: (request, size) => origin.blob(request, size),
    makeDirectory: path => mkdir(path, {recursive: true}),
    removeDirectory: path => rmdir(path),
    isKept: ({tocDigest}) =>
      imageTable.list().some(image => image.layers.some(({lazy}) => lazy?.tocDigest === tocDigest)),
    log,
  })
  const images = new StoredImages({
    store,
    table: imageTable,
    graphRoot: createGraphRoot(join(root, 'images')),
    openImage,
    unpacked: createUnpackedLayers(join(root, 'unpacked'), openImage),
    now: () => new Date(),
  })
  return {store, images}
}

function mountsDirectory(root: string): string {
  return join(root, 'mounts')
}

/**
 * The directory of the mountpoints is in memory, so that none of them is there after a reboot before it is mounted: whoever
 * follows a link to a layer then finds nothing, where he would find an empty layer.
 */
async function mountOwnDirectory(directory: string): Promise<void> {
  if (await findMount(directory)) return
  await mkdir(directory, {recursive: true, mode: 0o700})
  mount({source: 'stargz-store', target: directory, type: 'tmpfs', flags: 0, data: 'mode=700'})
}

interface Served {
  readonly layers: LazyLayers
  readonly store: LayerStore
  readonly images: StoredImages
  readonly told: ToldCredentials
  readonly starts: StartRecorder
  readonly state: ServiceState
}

/** Shows the layers until stopped; resolves to what stopped it. */
async function serve(
  {flags, log, stop}: DaemonOptions<StoreFlags>,
  {layers, store, images, told, starts, state}: Served,
): Promise<StopSignal> {
  const pool = join(flags.root, 'pool')
  await mkdir(pool, {recursive: true, mode: 0o700})
  await using server = openServer(log)
  serveControl(server, async json => {
    told.tell(json)
    await keepCredentials(told, {keeper: layers.keeper, log})
  })
  serveLazyLayers(server, {
    status: () => store.status(),
    starts: () => starts.starts(),
    announce: labels => layers.mounter.announce(labels),
    prune: () => layers.prune(),
  })
  serveImages(server, images)
  await server.listen(flags.address)
  const files = await openStoreFileSystem({
    mountpoint: flags.mountpoint,
    tree: createLayerStoreTree(store, pool),
    deadlineMs: LOOK_DEADLINE_MS,
    keeper: layers.keeper,
    log,
  })
  let signal: StopSignal = 'SIGINT'
  try {
    log.info({address: flags.address, root: flags.root, mountpoint: flags.mountpoint}, 'serving layers')
    state.ready()
    signal = await stopSignalOf(stop)
    log.info({signal}, 'stopping')
    state.stopping()
    return signal
  } finally {
    // A mount that nobody keeps would be an error for whoever looks at it, and that is every start of Podman.
    await files.close(signal === 'SIGTERM' && layers.keeper ? 'leave' : 'unmount')
  }
}

function openServer(log: Log): GrpcServer {
  return createGrpcServer((method, error) => {
    const code = codeOf(error)
    log[code === 'internal' ? 'error' : 'debug'](
      {method, code, error: describeError(error)},
      'request failed',
    )
  })
}

async function openConfig(flags: StoreFlags, log: Log): Promise<SnapshotterConfig> {
  const config = await readConfig(flags.config, {mayBeMissing: flags.config === DEFAULT_CONFIG, log})
  refuseUnverified(config, flags.config)
  return config
}
