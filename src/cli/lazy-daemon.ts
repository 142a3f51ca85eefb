// Which daemon of lazy layers a command asks: the snapshotter's, or stargz-store.

import * as Flags from '@oclif/core/flags'
import type {ConnectOptions} from '../lib/containerd/client.ts'
import {layerStoreFlags, lazySnapshotterFlag} from './flags.ts'

export const lazyDaemonFlags = {
  ...layerStoreFlags,
  ...lazySnapshotterFlag,
  'snapshotter-address': Flags.string({
    description: "the socket of the snapshotter's daemon (default: what containerd is configured with)",
  }),
}

export interface LazyDaemonFlags {
  readonly store: string
  readonly 'store-address': string
  readonly snapshotter: string
  readonly 'snapshotter-address'?: string | undefined
}

/** The daemon's socket. Throws what asking containerd throws. */
export async function findLazyDaemon(flags: LazyDaemonFlags, containerd: ConnectOptions): Promise<string> {
  if (flags.store === 'podman') return flags['store-address']
  if (flags['snapshotter-address'] !== undefined) return flags['snapshotter-address']
  const {findSnapshotterSocket} = await import('../lib/lazy-status/layers-of-image.ts')
  return await findSnapshotterSocket(flags.snapshotter, containerd)
}
