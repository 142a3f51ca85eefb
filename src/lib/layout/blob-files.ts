// The blobs of a layout directory as a content store.

import {stat} from 'node:fs/promises'
import {openFileBlob} from '../blob/file-blob.ts'
import {createDigester} from '../blob/sha256.ts'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import type {
  BlobWriter,
  CallOptions,
  CommitOptions,
  ContentInfo,
  StoredContent,
  WriteHint,
} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import {mergeLabels, readLabels} from './blob-labels.ts'
import {withLock} from './directory-lock.ts'
import {ensureLayout} from './layout-index.ts'
import {blobPath, type LayoutPaths} from './layout-paths.ts'
import type {Lease} from './leases.ts'
import {stageFile, sweepIngest, writeError} from './staged-file.ts'

export interface BlobFilesOptions {
  /** For messages. */
  readonly name: string
  /** Whether labels are kept; a directory that is handed on as an image has none. */
  readonly labels: boolean
  /** The leases that protect what this store writes and finds; the set is the caller's, and changes. */
  readonly leases: ReadonlySet<Lease>
}

/** Of a blob that is asked for by digest alone; only documents have a type that matters. */
const ANY_TYPE = 'application/octet-stream'

/**
 * The content store over `blobs/sha256`. `info` takes a file of another size than the descriptor's for absent, so that
 * writing it again heals it.
 */
export function createBlobFiles(paths: LayoutPaths, options: BlobFilesOptions): StoredContent {
  const prepare = prepareOnce(paths)
  return {
    name: options.name,
    info: (descriptor, call = {}) => findBlob(paths, descriptor, options, call),
    find: (digest, call = {}) => findBlob(paths, {digest, mediaType: ANY_TYPE}, options, call),
    open: (descriptor, call = {}) => {
      call.signal?.throwIfAborted()
      return openFileBlob(blobPath(paths, descriptor.digest), descriptor, {where: options.name})
    },
    async write(hint, call = {}) {
      await prepare(call)
      return writeBlob(paths, hint, options)
    },
    async setLabels(digest, labels, call = {}) {
      if (!options.labels) return
      await withLock(paths.lock, call, async () => {
        if ((await sizeOfBlob(paths, digest)) === undefined) {
          throw new CodedError('not-found', `Cannot label ${digest} in ${options.name}: it is not there`)
        }
        await mergeLabels(paths, digest, labels)
      }).catch(cause => {
        throw writeError(paths, cause)
      })
    },
  }
}

/** The size of a blob's file in bytes; undefined when there is none. */
export async function sizeOfBlob(paths: LayoutPaths, digest: Digest): Promise<number | undefined> {
  try {
    return (await stat(blobPath(paths, digest))).size
  } catch (error) {
    if (hasCode(error, 'not-found')) return undefined
    throw error
  }
}

/** Under a lease, finding a blob is a promise that it stays: that takes the lock, which a collector holds. */
async function findBlob(
  paths: LayoutPaths,
  blob: Pick<Descriptor, 'digest' | 'mediaType'> & {readonly size?: number},
  {labels, leases}: BlobFilesOptions,
  call: CallOptions,
): Promise<ContentInfo | undefined> {
  call.signal?.throwIfAborted()
  const find = async (): Promise<number | undefined> => {
    const size = await sizeOfBlob(paths, blob.digest)
    return size === (blob.size ?? size) ? size : undefined
  }
  const size = leases.size === 0 ? await find() : await withLock(paths.lock, call, findAndLease)
  if (size === undefined) return undefined
  const {digest} = blob
  return {digest, size, labels: labels ? await readLabels(paths, digest) : {}}

  async function findAndLease(): Promise<number | undefined> {
    const found = await find()
    if (found !== undefined) for (const lease of leases) await lease.add(blob)
    return found
  }
}

/** Before the first write of this process: make the directory a layout, and tidy up after killed writers. */
function prepareOnce(paths: LayoutPaths): (call: CallOptions) => Promise<void> {
  let prepared: Promise<void> | undefined
  return async call => {
    prepared ??= withLock(paths.lock, call, async () => {
      await ensureLayout(paths)
      await sweepIngest(paths)
    })
    try {
      await prepared
    } catch (cause) {
      prepared = undefined
      throw writeError(paths, cause)
    }
  }
}

async function writeBlob(
  paths: LayoutPaths,
  hint: WriteHint,
  options: BlobFilesOptions,
): Promise<BlobWriter> {
  const staged = await stageFile(paths).catch(cause => {
    throw writeError(paths, cause)
  })
  const digester = createDigester()
  let size = 0
  let committed = false

  async function commit(expected: {digest: Digest; size: number}, call: CommitOptions): Promise<void> {
    if (committed) throw new CodedError('internal', `Cannot commit ${expected.digest} twice`)
    committed = true
    checkWritten(expected, {digest: digester.digest(), size}, options.name)
    // Syncing takes long and needs no lock; only the rename must not meet a collector.
    await staged.handle.sync()
    await withLock(paths.lock, call, async () => {
      await staged.publish(blobPath(paths, expected.digest))
      for (const lease of options.leases) {
        await lease.add({digest: expected.digest, mediaType: hint.mediaType})
      }
      if (options.labels && call.labels) await mergeLabels(paths, expected.digest, call.labels)
    })
  }

  return {
    async write(bytes) {
      digester.update(bytes)
      size += bytes.length
      await staged.handle.writeFile(bytes).catch(cause => {
        throw writeError(paths, cause)
      })
    },
    commit: (expected, call = {}) =>
      commit(expected, call).catch(cause => {
        throw writeError(paths, cause)
      }),
    [Symbol.asyncDispose]: () => staged[Symbol.asyncDispose](),
  }
}

function checkWritten(
  expected: {readonly digest: Digest; readonly size: number},
  written: {readonly digest: Digest; readonly size: number},
  where: string,
): void {
  if (written.size !== expected.size) {
    throw new CodedError(
      'corrupt',
      `Cannot write ${expected.digest} to ${where}: got ${written.size} bytes instead of ${expected.size}`,
    )
  }
  if (written.digest !== expected.digest) {
    throw new CodedError(
      'corrupt',
      `Cannot write ${expected.digest} to ${where}: what arrived has digest ${written.digest}`,
    )
  }
}
