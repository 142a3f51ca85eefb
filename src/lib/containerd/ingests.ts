// What blobs are called while they are written, so that a process can go on where a killed one stopped.

import {randomBytes} from 'node:crypto'
import {timestampDate} from '@bufbuild/protobuf/wkt'
import {isOwnerAlive, ownerToken} from '../io/process-owner.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {type Digest, isDigest} from '../oci/digest.ts'
import type {ContainerdClient} from './client.ts'
import {Content} from './proto/content_pb.ts'

/** `ctr-remote-<owner token>-<random>`, then `-<digest>` where that is known beforehand. */
const NAME = /^ctr-remote-([^-]+)-[0-9a-f]{16}-(sha256:[0-9a-f]{64})$/

/** Less is sent again as fast as it is found, bytes. */
const MIN_RESUMED = 1024 * 1024

/** An ingest by digest, which nobody writes any more. */
export type AbandonedIngests = Map<Digest, string>

/** A name that is this process's alone: writers of the same blob never wait for each other. */
export function ingestName(digest: Digest | undefined): string {
  const name = `ctr-remote-${ownerToken()}-${randomBytes(8).toString('hex')}`
  return digest === undefined ? name : `${name}-${digest}`
}

/** The ingests of processes of ours that were killed; of several for one digest, the one that came furthest. */
export async function findAbandonedIngests(
  client: ContainerdClient,
  options: CallOptions,
): Promise<AbandonedIngests> {
  const {statuses} = await client.call(
    Content.method.listStatuses,
    {},
    {...options, doing: 'list what is being written'},
  )
  const found: AbandonedIngests = new Map()
  for (const {ref, offset, updatedAt} of statuses.sort((a, b) => Number(a.offset - b.offset))) {
    const [, owner, digest] = NAME.exec(ref) ?? []
    if (owner === undefined || !isDigest(digest) || offset < MIN_RESUMED) continue
    if (!isOwnerAlive(owner, updatedAt ? timestampDate(updatedAt).getTime() : 0)) found.set(digest, ref)
  }
  return found
}
