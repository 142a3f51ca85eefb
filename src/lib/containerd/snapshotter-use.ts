// Who uses a snapshotter, in every namespace of a containerd.

import {hasCode} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {ContainerdClient} from './client.ts'
import {Containers} from './proto/containers_pb.ts'
import {Namespaces} from './proto/namespaces_pb.ts'
import {Snapshots} from './proto/snapshots_pb.ts'

/** The namespaces that containerd has. */
export async function listNamespaces(client: ContainerdClient, options: CallOptions): Promise<string[]> {
  const {namespaces} = await client.call(Namespaces.method.list, {}, {...options, doing: 'list namespaces'})
  return namespaces.map(({name}) => name)
}

/** The ids of the containers of the client's namespace whose snapshot is one of `snapshotter`. */
export async function containersOf(
  client: ContainerdClient,
  snapshotter: string,
  options: CallOptions,
): Promise<string[]> {
  const {containers} = await client.call(Containers.method.list, {}, {...options, doing: 'list containers'})
  return containers.filter(container => container.snapshotter === snapshotter).map(({id}) => id)
}

/**
 * Removes the snapshots that the client's namespace has of `snapshotter`, from the top; resolves to how many are left, because
 * a container or something else is based on them.
 */
export async function removeSnapshots(
  client: ContainerdClient,
  snapshotter: string,
  options: CallOptions,
): Promise<number> {
  const used = await keysOfContainers(client, snapshotter, options)
  const parents = new Map<string, string>()
  const doing = `list the snapshots of "${snapshotter}"`
  for await (const {info} of client.stream(Snapshots.method.list, {snapshotter}, {...options, doing})) {
    for (const {name, parent} of info) parents.set(name, parent)
  }
  for (;;) {
    const below = new Set(parents.values())
    const tops = [...parents.keys()].filter(name => !below.has(name) && !used.has(name))
    if (tops.length === 0) return parents.size
    for (const key of tops) {
      if (await removeSnapshot(client, {snapshotter, key}, options)) parents.delete(key)
      else used.add(key)
    }
  }
}

async function keysOfContainers(
  client: ContainerdClient,
  snapshotter: string,
  options: CallOptions,
): Promise<Set<string>> {
  const {containers} = await client.call(Containers.method.list, {}, {...options, doing: 'list containers'})
  return new Set(
    containers.filter(container => container.snapshotter === snapshotter).map(({snapshotKey}) => snapshotKey),
  )
}

/** False for one that is in use. */
async function removeSnapshot(
  client: ContainerdClient,
  request: {readonly snapshotter: string; readonly key: string},
  options: CallOptions,
): Promise<boolean> {
  try {
    const doing = `remove the snapshot "${request.key}"`
    await client.call(Snapshots.method.remove, request, {...options, doing})
    return true
  } catch (error) {
    if (hasCode(error, 'not-found')) return true
    if (hasCode(error, 'failed-precondition')) return false
    throw error
  }
}
