// Mounting with mount(8) and umount(8), and finding what is mounted below a directory.

import {readFile} from 'node:fs/promises'
import {CodedError, describeError} from '../errors/coded-error.ts'
import {runCommand, runCommandOrThrow} from '../io/run-command.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {mountPointsBelow} from './mount-table.ts'

/** Most layers overlayfs stacks (OVL_MAX_STACK in fs/overlayfs/params.h). */
const MAX_OVERLAY_LAYERS = 500

export interface OverlayMount {
  /** Directory that the other paths are relative to: short names keep 500 layers within mount(2)'s one page. */
  readonly base: string
  /** Lowest layer first. */
  readonly lower: readonly string[]
  readonly upper: string
  readonly work: string
  readonly target: string
}

/** Stacks layers into one writable tree. Throws `unsupported` for more layers than the kernel stacks. */
export async function mountOverlay(mount: OverlayMount, options: CallOptions = {}): Promise<void> {
  if (mount.lower.length > MAX_OVERLAY_LAYERS) {
    throw new CodedError(
      'unsupported',
      `Cannot mount an image of ${mount.lower.length} layers: overlayfs stacks at most ${MAX_OVERLAY_LAYERS}`,
    )
  }
  const lower = [...mount.lower].reverse().join(':')
  const data = `lowerdir=${lower},upperdir=${mount.upper},workdir=${mount.work}`
  // -i: no helper program (fuse-overlayfs) may answer for the kernel, because fanotify must see the accesses.
  await runCommandOrThrow('mount', ['-i', '-t', 'overlay', '-o', data, 'overlay', mount.target], {
    cwd: mount.base,
    signal: options.signal,
  })
}

/** Mounts a tmpfs, root's alone. */
export async function mountTmpfs(target: string, options: CallOptions = {}): Promise<void> {
  await runCommandOrThrow('mount', ['-i', '-t', 'tmpfs', '-o', 'mode=700', 'tmpfs', target], options)
}

/**
 * Unmounts everything at and below `directory`, deepest first. What is busy is detached, so that it goes with its last
 * user. Not abortable: it is how an abort cleans up.
 */
export async function unmountBelow(directory: string): Promise<void> {
  const mounts = mountPointsBelow(await readFile('/proc/self/mountinfo', 'latin1'), directory)
  for (const point of mounts.reverse()) {
    const {exitCode} = await runCommand('umount', ['-i', '--', point])
    if (exitCode !== 0) await detach(point)
  }
}

async function detach(point: string): Promise<void> {
  try {
    await runCommandOrThrow('umount', ['-i', '-l', '--', point])
  } catch (cause) {
    throw new CodedError('internal', `Cannot unmount ${JSON.stringify(point)}: ${describeError(cause)}`, {
      cause,
    })
  }
}
