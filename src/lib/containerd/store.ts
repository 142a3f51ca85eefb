// The `containerd` store: a namespace of a running containerd.

import type {CallOptions} from '../oci/content-store.ts'
import type {Store} from '../oci/image-store.ts'
import {type ConnectOptions, type ContainerdClient, connectContainerd} from './client.ts'
import {createContent} from './content.ts'
import {createImages} from './images.ts'
import {Content} from './proto/content_pb.ts'
import {collectNow, createSessionLease, type SessionLease} from './session-lease.ts'

/** A store with the connection it stands on, for what only containerd can do: unpack, mount, run. */
export interface ContainerdStore extends Store {
  readonly kind: 'containerd'
  readonly client: ContainerdClient
  readonly session: SessionLease
}

/** Whether a store is containerd's. */
export function isContainerdStore(store: Store): store is ContainerdStore {
  return store.kind === 'containerd' && 'client' in store
}

/** Connects to containerd and opens a namespace of it as a store; throws as `connectContainerd`. */
export async function openContainerdStore(options: ConnectOptions = {}): Promise<ContainerdStore> {
  return createContainerdStore(await connectContainerd(options))
}

/** The store over a connection; disposing it ends its lease and closes the connection. */
export function createContainerdStore(client: ContainerdClient): ContainerdStore {
  const session = createSessionLease(client)
  const content = createContent(client, session)
  return {
    kind: 'containerd',
    name: `${client.address}, namespace ${client.namespace}`,
    client,
    session,
    content,
    images: createImages(client, session, content),
    lease: (call = {}) => session.hold(call),
    async collectGarbage(call = {}) {
      const before = await totalSize(client, call)
      await collectNow(client, call)
      return Math.max(0, before - (await totalSize(client, call)))
    },
    async [Symbol.asyncDispose]() {
      try {
        await session.end()
      } finally {
        client[Symbol.dispose]()
      }
    },
  }
}

/** Bytes of all content of the namespace. */
async function totalSize(client: ContainerdClient, options: CallOptions): Promise<number> {
  let bytes = 0
  for await (const {info} of client.stream(Content.method.list, {}, {...options, doing: 'list content'})) {
    for (const {size} of info) bytes += Number(size)
  }
  return bytes
}
