// The built stargz-store with its root, socket and mountpoint in a temporary directory.

import {mkdtemp} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join, resolve} from 'node:path'
import {startDaemon, type TestDaemon} from './daemon.ts'

export const LAYER_STORE = resolve(import.meta.dirname, '../../bin/stargz-store')
export const LAYER_STORE_HELPER = resolve(import.meta.dirname, '../../bin/stargz-store-helper')

export interface TestLayerStore extends TestDaemon {
  readonly mountpoint: string
}

export interface TestLayerStoreOptions {
  /** Its configuration, TOML. */
  readonly config?: string
  /** Whose contents are the caller's, until it is stopped; the store's root is `root` in it. */
  readonly directory?: string
  /** In a user and a mount namespace of its own, as for rootless Podman. Needs unshare. */
  readonly rootless?: boolean
  /** Beside the environment of every test's daemon. */
  readonly env?: Readonly<Record<string, string>>
}

/** Without a process in between, so that signals reach the daemon. */
const UNSHARE = ['unshare', '--user', '--map-root-user', '--mount']

/** Starts the daemon and waits until it serves. Needs root. */
export async function startLayerStore(options: TestLayerStoreOptions = {}): Promise<TestLayerStore> {
  const {config = '', rootless = false, env = {}} = options
  const directory = options.directory ?? (await layerStoreDirectory())
  const address = join(directory, 'store.sock')
  const mountpoint = join(directory, 'store')
  const argv = [
    '--addr',
    address,
    '--config',
    join(directory, 'config.toml'),
    '--root',
    join(directory, 'root'),
  ]
  const daemon = await startDaemon({
    program: [...(rootless ? UNSHARE : []), LAYER_STORE],
    what: 'The layer store',
    directory,
    address,
    config,
    argv: [...argv, '--log-level', 'debug', mountpoint],
    env,
  })
  return Object.defineProperties({mountpoint} as TestLayerStore, Object.getOwnPropertyDescriptors(daemon))
}

/** An empty directory for a store. */
export function layerStoreDirectory(): Promise<string> {
  return mkdtemp(join(tmpdir(), 'ctr-remote-layer-store-'))
}
