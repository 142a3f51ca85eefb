// How layers become file systems on this machine.

import {dirname, join} from 'node:path'
import {CodedError} from '../../lib/errors/coded-error.ts'
import type {FuseLog} from '../../lib/fuse/fuse-log.ts'
import {type Keeper, openKeeper} from '../../lib/fuse/keeper.ts'
import {openDataFileSystem} from '../../lib/fuse-data/data-files.ts'
import {createErofsBackend} from '../../lib/fuse-data/erofs-backend.ts'
import {createTreeBackend} from '../../lib/fuse-tree/tree-backend.ts'
import {TreeFileSystem} from '../../lib/fuse-tree/tree-file-system.ts'
import type {MountBackend} from '../../lib/layer/ports.ts'
import {canMountErofs} from '../../lib/mount/mount-erofs.ts'
import type {SnapshotterConfig} from './config.ts'
import {overlayOptionsOfThisMachine} from './overlay-options.ts'

/** The backend that is configured, or the best that this kernel has. */
export async function openBackend(
  root: string,
  {
    config,
    keeper,
    log,
  }: {readonly config: SnapshotterConfig; readonly keeper: Keeper | undefined; readonly log: FuseLog},
): Promise<MountBackend> {
  const {mountBackend: wanted} = config
  if (keeper) log.info({}, 'Start snapshotter with fusemanager mode')
  const options = {deadlineMs: config.blob.fetchTimeoutMs, log, keeper}
  if (wanted !== 'fuse') {
    if (await canMountErofs(root)) {
      log.info({backend: 'erofs'}, 'mounting layers')
      // They are beside our own directory.
      const [mountpoint, mountsBelow] = [join(root, 'data'), dirname(root)]
      return createErofsBackend(await openDataFileSystem({...options, mountpoint, mountsBelow}))
    }
    if (wanted === 'erofs') {
      throw new CodedError(
        'unsupported',
        'Cannot mount layers: this kernel mounts no EROFS images from files (Linux 6.12 with EROFS_FS_BACKED_BY_FILE); set mount_backend = "fuse"',
      )
    }
  }
  log.info({backend: 'fuse'}, 'mounting layers')
  const opaque = overlayOptionsOfThisMachine().includes('userxattr') ? 'user' : 'trusted'
  const trees = await TreeFileSystem.open({
    ...options,
    mountpoint: join(root, 'trees'),
    passthroughDirectory: config.fuse.passthrough ? join(root, 'passthrough') : undefined,
  })
  return createTreeBackend(trees, opaque)
}

/** The process that keeps mounts over a restart, unless it is switched off. */
export async function openKeeperOf(root: string, config: SnapshotterConfig): Promise<Keeper | undefined> {
  return config.keeper && (await openKeeper({directory: keeperDirectory(root, config.keeper.address)}))
}

/**
 * Where the keeper has its socket: it belongs to the mounts below `root`, and so goes with them. The configured address,
 * where the reference's manager would listen, names the directory instead where one is given.
 */
function keeperDirectory(root: string, address: string): string {
  return address === '' ? join(root, 'keeper') : address.replace(/\.sock$/, '')
}
