// Snapshots as containers and people use them: a writable one over an image, and its mounts.

import {CodedError, hasCode} from '../errors/coded-error.ts'
import {runCommandOrThrow} from '../io/run-command.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Labels} from './gc-labels.ts'
import {makeSnapshot} from './make-snapshot.ts'
import {Snapshots} from './proto/snapshots_pb.ts'
import type {Mount} from './proto/types_pb.ts'
import type {ContainerdStore} from './store.ts'

export interface SnapshotOptions extends CallOptions {
  readonly snapshotter: string
  readonly key: string
  /** The chain id that it starts from. */
  readonly parent: string
  readonly writable: boolean
  readonly labels?: Labels
}

/** What mount(2) takes as data is one page; longer options are shortened. */
const MAX_MOUNT_DATA = 4000

/**
 * Makes a snapshot and resolves to its mounts; it belongs to the lease. Throws `already-exists` for a key in use. Not
 * abandoned half-way, which takes a moment: the caller would not know whether there is something to remove.
 */
export async function createSnapshot(
  {client, session}: ContainerdStore,
  options: SnapshotOptions,
): Promise<readonly Mount[]> {
  const {snapshotter, key, parent} = options
  options.signal?.throwIfAborted()
  const request = {snapshotter, key, parent, labels: {...options.labels}}
  const call = {lease: session.id, doing: `make the snapshot "${key}" of "${snapshotter}"`}
  return await makeSnapshot(client, options.writable ? 'prepare' : 'view', request, call)
}

/** Removes a snapshot; one that is gone is no error, and one that cannot be removed now goes with its lease. */
export async function removeSnapshot(
  {client}: ContainerdStore,
  snapshotter: string,
  key: string,
): Promise<void> {
  try {
    const doing = `remove the snapshot "${key}" of "${snapshotter}"`
    await client.call(Snapshots.method.remove, {snapshotter, key}, {doing})
  } catch (error) {
    if (!hasCode(error, 'not-found', 'unavailable')) throw error
  }
}

/** Mounts a snapshot on a directory of this machine; whoever mounts unmounts. Needs root. */
export async function mountSnapshot(
  mounts: readonly Mount[],
  target: string,
  options: CallOptions & {readonly readOnly?: boolean} = {},
): Promise<void> {
  if (mounts.length === 0) {
    throw new CodedError('failed-precondition', `Cannot mount on "${target}": the snapshot has no mounts`)
  }
  for (const {type, source, options: own, target: below} of mounts) {
    const {cwd, data} = shortenLayers([...own, ...(options.readOnly ? ['ro'] : [])])
    const place = below ? `${target}/${below}` : target
    const isBind = type === 'bind' || own.includes('bind') || own.includes('rbind')
    const args = ['-i', ...(isBind ? [] : ['-t', type]), ...(data ? ['-o', data] : []), '--', source, place]
    await runCommandOrThrow('mount', args, {cwd, signal: options.signal})
  }
}

/** Long lists of layers are named relative to the directory that they have in common. */
function shortenLayers(options: readonly string[]): {readonly cwd?: string; readonly data: string} {
  const data = options.join(',')
  const lower = options.find(option => option.startsWith('lowerdir='))
  if (data.length <= MAX_MOUNT_DATA || lower === undefined) return {data}
  const layers = lower.slice('lowerdir='.length).split(':')
  const cwd = commonDirectory(layers)
  const short = layers.map(layer => layer.slice(cwd.length + 1)).join(':')
  return {cwd, data: options.map(option => (option === lower ? `lowerdir=${short}` : option)).join(',')}
}

function commonDirectory(paths: readonly string[]): string {
  const [first = '', ...others] = paths.map(path => path.split('/').slice(0, -1))
  const parts = [...first]
  for (const other of others) {
    const differs = parts.findIndex((part, index) => other[index] !== part)
    if (differs !== -1) parts.length = differs
  }
  return parts.join('/')
}
