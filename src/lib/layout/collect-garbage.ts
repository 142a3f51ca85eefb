// Removes the blobs of a layout that no index entry and no lease reaches.

import {rm, stat} from 'node:fs/promises'
import {join} from 'node:path'
import {openFileBlob} from '../blob/file-blob.ts'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {type Digest, hexOf, isDigest} from '../oci/digest.ts'
import {type ImageDocument, MAX_MANIFEST_SIZE, parseImageDocument} from '../oci/manifest.ts'
import {isIndexMediaType, isManifestMediaType} from '../oci/media-type.ts'
import {sizeOfBlob} from './blob-files.ts'
import {withLock} from './directory-lock.ts'
import {readLayoutIndex} from './layout-index.ts'
import {blobPath, type LayoutPaths, labelsPath} from './layout-paths.ts'
import {type Leased, readLeases} from './leases.ts'
import {listDirectory, sweepIngest, writeError} from './staged-file.ts'

/**
 * Collects garbage under the lock, so no blob can be written or promised meanwhile; resolves to the bytes freed. A
 * manifest that cannot be understood stops the collection with `corrupt` before anything is removed, because what it
 * refers to is unknown. One that is not there is none: partial pulls leave out other platforms.
 */
export async function collectGarbage(paths: LayoutPaths, options: CallOptions): Promise<number> {
  const index = await readLayoutIndex(paths)
  if (index === undefined) return 0
  return withLock(paths.lock, options, async () => {
    const current = (await readLayoutIndex(paths)) ?? index
    const reached = await reach(paths, [...current.manifests, ...(await readLeases(paths))], options)
    const freed = await sweepBlobs(paths, reached, options)
    await sweepLabels(paths)
    await sweepIngest(paths)
    return freed
  }).catch(cause => {
    throw writeError(paths, cause)
  })
}

async function reach(
  paths: LayoutPaths,
  roots: readonly Leased[],
  {signal}: CallOptions,
): Promise<ReadonlySet<Digest>> {
  const reached = new Set<Digest>()
  const walked = new Set<Digest>()
  const pending = [...roots]
  for (let next = pending.pop(); next; next = pending.pop()) {
    signal?.throwIfAborted()
    reached.add(next.digest)
    const hasChildren = isIndexMediaType(next.mediaType) || isManifestMediaType(next.mediaType)
    if (!hasChildren || walked.has(next.digest)) continue
    walked.add(next.digest)
    pending.push(...(await childrenOf(paths, next)))
  }
  return reached
}

async function childrenOf(paths: LayoutPaths, parent: Leased): Promise<readonly Descriptor[]> {
  const document = await readDocument(paths, parent)
  if (document === undefined) return []
  return document.kind === 'index'
    ? document.index.manifests
    : [document.manifest.config, ...document.manifest.layers]
}

async function readDocument(
  paths: LayoutPaths,
  {digest, mediaType}: Leased,
): Promise<ImageDocument | undefined> {
  const size = await sizeOfBlob(paths, digest)
  if (size === undefined) return undefined
  if (size > MAX_MANIFEST_SIZE) {
    throw new CodedError(
      'corrupt',
      `Cannot use the manifest ${digest} in "${paths.root}": ${size} bytes exceed the limit of ${MAX_MANIFEST_SIZE}`,
    )
  }
  await using blob = await openFileBlob(blobPath(paths, digest), {digest, size}, {where: `"${paths.root}"`})
  const parts: Uint8Array[] = []
  for await (const part of blob.stream()) parts.push(part)
  return parseImageDocument(Buffer.concat(parts), mediaType, `the manifest ${digest} in "${paths.root}"`)
}

async function sweepBlobs(
  paths: LayoutPaths,
  reached: ReadonlySet<Digest>,
  {signal}: CallOptions,
): Promise<number> {
  let freed = 0
  for (const name of await listDirectory(paths.blobs)) {
    signal?.throwIfAborted()
    const digest = `sha256:${name}`
    if (!isDigest(digest) || reached.has(digest)) continue
    freed += await removeFile(join(paths.blobs, name))
  }
  return freed
}

async function sweepLabels(paths: LayoutPaths): Promise<void> {
  const present = new Set(await listDirectory(paths.blobs))
  for (const name of await listDirectory(paths.labels)) {
    const digest = `sha256:${name.replace(/\.json$/, '')}`
    if (isDigest(digest) && !present.has(hexOf(digest))) await rm(labelsPath(paths, digest), {force: true})
  }
}

/** Removes a file; resolves to its size. */
async function removeFile(path: string): Promise<number> {
  try {
    const {size} = await stat(path)
    await rm(path)
    return size
  } catch (error) {
    if (hasCode(error, 'not-found')) return 0
    throw error
  }
}
