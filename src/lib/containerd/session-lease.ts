// The one lease of a store: it exists while anybody needs it, and everything the store writes or finds belongs to it.

import {randomBytes} from 'node:crypto'
import {timestampDate} from '@bufbuild/protobuf/wkt'
import {hasCode} from '../errors/coded-error.ts'
import {isOwnerAlive, ownerToken} from '../io/process-owner.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Digest} from '../oci/digest.ts'
import type {ContainerdClient} from './client.ts'
import {type Labels, LEASE_EXPIRES} from './gc-labels.ts'
import {type AbandonedIngests, findAbandonedIngests} from './ingests.ts'
import {Leases} from './proto/leases_pb.ts'

/** Says which process a lease belongs to, so that the next one of us can remove it if that was killed. */
const OWNER_LABEL = 'ctr-remote.io/owner'

/** Nothing we do takes longer; `ctr` gives its leases as long. */
const LIFETIME_MS = 24 * 60 * 60 * 1000

/** Kinds of resources that a lease can be told to keep: content by digest, snapshots as `snapshots/<snapshotter>`. */
export type ResourceType = 'content' | `snapshots/${string}`

export interface SessionLease {
  /** Its id while somebody holds it. */
  readonly id: string | undefined
  /** Creates the lease, or joins its holders. The last one to dispose deletes it. */
  hold(options: CallOptions): Promise<AsyncDisposable>
  /** The name of an ingest of a blob that a killed process of ours left; it is told once. */
  takeAbandoned(digest: Digest): string | undefined
  /** Keeps something that exists already; nothing happens while nobody holds the lease. */
  keep(type: ResourceType, id: string, options: CallOptions): Promise<void>
  /** Deletes the lease whoever holds it. */
  end(): Promise<void>
}

export function createSessionLease(client: ContainerdClient): SessionLease {
  let holders = 0
  let created: Promise<string> | undefined
  let id: string | undefined
  let abandoned: AbandonedIngests = new Map()

  async function end(): Promise<void> {
    const ending = created
    created = undefined
    id = undefined
    holders = 0
    const lease = await ending?.catch(() => undefined)
    if (lease !== undefined) await deleteLease(client, lease)
  }

  return {
    get id() {
      return id
    },
    async hold(options) {
      holders += 1
      created ??= createLease(client, options).then(lease => {
        abandoned = lease.abandoned
        return lease.id
      })
      const mine = created
      try {
        id = await mine
      } catch (error) {
        if (created === mine) {
          created = undefined
          holders = 0
        }
        throw error
      }
      let held = true
      return {
        async [Symbol.asyncDispose]() {
          if (!held || created !== mine) return
          held = false
          holders -= 1
          if (holders === 0) await end()
        },
      }
    },
    takeAbandoned(digest) {
      const name = abandoned.get(digest)
      abandoned.delete(digest)
      return name
    },
    async keep(type, resource, options) {
      if (id === undefined) return
      await client.call(
        Leases.method.addResource,
        {id, resource: {type, id: resource}},
        {...options, doing: `keep ${resource}`},
      )
    },
    end,
  }
}

/** Runs the garbage collector and waits for it: containerd does so for a lease that is deleted in step. */
export async function collectNow(client: ContainerdClient, options: CallOptions = {}): Promise<void> {
  const {id} = await createLease(client, options)
  await client.call(Leases.method.delete, {id, sync: true}, {...options, doing: 'collect garbage'})
}

/**
 * Creates a lease that keeps resources until it is deleted, however long that takes: with an end, the collector would take
 * a snapshot from under whoever looks into it. Throws `already-exists`. One that fails half-way leaves none.
 */
export async function createLeaseNamed(
  client: ContainerdClient,
  id: string,
  resources: readonly {readonly type: ResourceType; readonly id: string}[],
  options: CallOptions,
): Promise<void> {
  await create(client, id, {}, options)
  try {
    for (const resource of resources) {
      await client.call(Leases.method.addResource, {id, resource}, {...options, doing: `keep ${resource.id}`})
    }
  } catch (error) {
    await deleteLease(client, id)
    throw error
  }
}

/** Never abandoned half-way: a lease that containerd makes for somebody who has gone would stay. */
async function create(
  client: ContainerdClient,
  id: string,
  labels: Labels,
  {signal}: CallOptions,
): Promise<void> {
  signal?.throwIfAborted()
  await client.call(Leases.method.create, {id, labels}, {doing: `create the lease "${id}"`})
}

interface NewLease {
  readonly id: string
  readonly abandoned: AbandonedIngests
}

/** What killed processes of ours were writing is kept by their leases alone; ours takes it over, and theirs go. */
async function createLease(client: ContainerdClient, options: CallOptions): Promise<NewLease> {
  const stale = await listStaleLeases(client, options)
  const id = `ctr-remote-${randomBytes(8).toString('hex')}`
  await create(client, id, {[LEASE_EXPIRES]: expiry(), [OWNER_LABEL]: ownerToken()}, options)
  const abandoned: AbandonedIngests =
    stale.length > 0 ? await findAbandonedIngests(client, options) : new Map()
  for (const name of abandoned.values()) {
    const resource = {type: 'ingests', id: name}
    await client.call(Leases.method.addResource, {id, resource}, {...options, doing: `keep ${name}`})
  }
  for (const lease of stale) await deleteLease(client, lease)
  return {id, abandoned}
}

function expiry(): string {
  return new Date(Date.now() + LIFETIME_MS).toISOString()
}

async function listStaleLeases(client: ContainerdClient, options: CallOptions): Promise<readonly string[]> {
  const filters = [`labels."${OWNER_LABEL}"`]
  const {leases} = await client.call(Leases.method.list, {filters}, {...options, doing: 'list leases'})
  const isStale = ({labels, createdAt}: (typeof leases)[number]): boolean => {
    const owner = labels[OWNER_LABEL]
    return owner !== undefined && !isOwnerAlive(owner, createdAt ? timestampDate(createdAt).getTime() : 0)
  }
  return leases.filter(isStale).map(({id}) => id)
}

/** Deletes a lease; one that is gone is no error. A containerd that has gone keeps the lease, until it expires or our next process finds it stale. */
export async function deleteLease(client: ContainerdClient, id: string): Promise<void> {
  try {
    await client.call(Leases.method.delete, {id}, {doing: `delete the lease "${id}"`})
  } catch (error) {
    if (!hasCode(error, 'not-found', 'unavailable')) throw error
  }
}
