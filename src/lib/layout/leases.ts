// Leases as files, one digest a line: what a running process needs and no image names yet. The lock guards them all.

import {randomBytes} from 'node:crypto'
import {appendFile, mkdir, readFile, rm} from 'node:fs/promises'
import {join} from 'node:path'
import {hasCode} from '../errors/coded-error.ts'
import {isOwnerAlive, ownerToken} from '../io/process-owner.ts'
import {type Digest, isDigest} from '../oci/digest.ts'
import {isIndexMediaType, isManifestMediaType} from '../oci/media-type.ts'
import type {LayoutPaths} from './layout-paths.ts'
import {listDirectory, modifiedTimeOf} from './staged-file.ts'

/** Content that a lease keeps; the media type tells a collector which of it has children. */
export interface Leased {
  readonly digest: Digest
  readonly mediaType: string
}

/** A lease of this process. Its file lives until it is disposed, or its process is dead. */
export interface Lease extends AsyncDisposable {
  /** Keeps `content` (and what it refers to). The caller holds the lock. */
  add(content: Leased): Promise<void>
}

export async function createLease(paths: LayoutPaths): Promise<Lease> {
  const path = join(paths.leases, `${ownerToken()}-${randomBytes(8).toString('hex')}`)
  await mkdir(paths.leases, {recursive: true})
  await appendFile(path, '')
  return {
    add: ({digest, mediaType}) => appendFile(path, `${digest} ${hasChildren(mediaType) ? mediaType : ''}\n`),
    [Symbol.asyncDispose]: () => rm(path, {force: true}),
  }
}

/** What all live leases keep; removes the files of dead ones. The caller holds the lock. */
export async function readLeases(paths: LayoutPaths): Promise<Leased[]> {
  const leased: Leased[] = []
  for (const name of await listDirectory(paths.leases)) {
    const path = join(paths.leases, name)
    const modifiedMs = await modifiedTimeOf(path)
    if (modifiedMs === undefined) continue
    if (!isOwnerAlive(name.slice(0, name.lastIndexOf('-')), modifiedMs)) {
      await rm(path, {force: true})
      continue
    }
    leased.push(...parseLease(await readIfThere(path)))
  }
  return leased
}

/** Only manifests and indexes are told apart; other media types are a remote's text, and do not matter here. */
function hasChildren(mediaType: string): boolean {
  return isManifestMediaType(mediaType) || isIndexMediaType(mediaType)
}

function parseLease(text: string): Leased[] {
  return text.split('\n').flatMap(line => {
    const [digest, mediaType = ''] = line.split(' ')
    return isDigest(digest) ? [{digest, mediaType}] : []
  })
}

/** A lease may be disposed, without the lock, while we look at it. */
async function readIfThere(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (hasCode(error, 'not-found')) return ''
    throw error
  }
}
