// The `local` store: an OCI image layout directory that many processes may use at once.

import {CodedError} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {ImageRecord, ImageStore, Store} from '../oci/image-store.ts'
import {createBlobFiles, sizeOfBlob} from './blob-files.ts'
import {collectGarbage} from './collect-garbage.ts'
import {withLock} from './directory-lock.ts'
import {entryOfRecord, nameOfEntry, plainTarget, recordOfEntry} from './image-entries.ts'
import {changeLayoutIndex, ensureLayout, readLayoutIndex} from './layout-index.ts'
import {type LayoutPaths, layoutPaths} from './layout-paths.ts'
import {createLease, type Lease} from './leases.ts'
import {writeError} from './staged-file.ts'

/**
 * Opens the store in `directory`, which need not exist: the first write makes it a layout, and reading never writes.
 * Throws `corrupt` when it is a layout that cannot be understood; then nothing in it is changed. Disposing ends the
 * leases taken from this store.
 */
export async function openLocalStore(directory: string, options: CallOptions = {}): Promise<Store> {
  options.signal?.throwIfAborted()
  const paths = layoutPaths(directory)
  await readLayoutIndex(paths)
  const leases = new Set<Lease>()
  const content = createBlobFiles(paths, {name: `the local store "${directory}"`, labels: true, leases})
  return {
    kind: 'local',
    name: directory,
    content,
    images: createImages(paths),
    lease: (call = {}) => takeLease(paths, leases, call),
    collectGarbage: (call = {}) => collectGarbage(paths, call),
    async [Symbol.asyncDispose]() {
      for (const lease of leases) await lease[Symbol.asyncDispose]()
      leases.clear()
    },
  }
}

/** Takes a lease and puts it among those that the blobs of this layout are written under. */
export async function takeLease(
  paths: LayoutPaths,
  leases: Set<Lease>,
  call: CallOptions,
): Promise<AsyncDisposable> {
  // Under the lock a collector has either finished, or will see the lease.
  const lease = await withLock(paths.lock, call, () => createLease(paths)).catch(cause => {
    throw writeError(paths, cause)
  })
  leases.add(lease)
  return {
    async [Symbol.asyncDispose]() {
      leases.delete(lease)
      await lease[Symbol.asyncDispose]()
    },
  }
}

function createImages(paths: LayoutPaths): ImageStore {
  return {
    async get(name, call = {}) {
      call.signal?.throwIfAborted()
      const entry = (await entriesOf(paths)).find(found => nameOfEntry(found) === name)
      return entry && recordOfEntry(name, entry)
    },
    async list(call = {}) {
      call.signal?.throwIfAborted()
      const records = new Map<string, ImageRecord>()
      for (const entry of await entriesOf(paths)) {
        const name = nameOfEntry(entry)
        if (name !== undefined && !records.has(name)) records.set(name, recordOfEntry(name, entry))
      }
      return [...records.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
    },
    put: (name, target, call = {}) =>
      changing(paths, call, () => putImage(paths, name, plainTarget(target), call.labels)),
    async remove(name, call = {}) {
      await changing(paths, call, () => removeImage(paths, name))
      if (call.sync) await collectGarbage(paths, call)
    },
  }
}

async function changing<T>(paths: LayoutPaths, call: CallOptions, body: () => Promise<T>): Promise<T> {
  try {
    // Before the lock, because locking makes a directory: a layout that cannot be understood stays untouched.
    await readLayoutIndex(paths)
    return await withLock(paths.lock, call, body)
  } catch (cause) {
    throw writeError(paths, cause)
  }
}

async function putImage(
  paths: LayoutPaths,
  name: string,
  target: Descriptor,
  labels: Readonly<Record<string, string>> | undefined,
): Promise<ImageRecord> {
  if (name === '') throw new CodedError('invalid-argument', 'Cannot name an image "": the name is empty')
  if ((await sizeOfBlob(paths, target.digest)) === undefined) {
    throw new CodedError(
      'not-found',
      `Cannot name ${target.digest} "${name}": it is not in the local store "${paths.root}"`,
    )
  }
  await ensureLayout(paths)
  const now = new Date().toISOString()
  let record: ImageRecord = {name, target, labels: labels ?? {}, createdAt: now, updatedAt: now}
  await changeLayoutIndex(paths, entries => {
    const before = entries.find(entry => nameOfEntry(entry) === name)
    if (before) {
      const old = recordOfEntry(name, before)
      record = {...record, createdAt: old.createdAt, labels: labels ?? old.labels}
    }
    return [...entries.filter(entry => nameOfEntry(entry) !== name), entryOfRecord(record)]
  })
  return record
}

async function removeImage(paths: LayoutPaths, name: string): Promise<void> {
  if (!(await entriesOf(paths)).some(entry => nameOfEntry(entry) === name)) {
    throw new CodedError('not-found', `Cannot find image "${name}" in the local store "${paths.root}"`)
  }
  await changeLayoutIndex(paths, entries => entries.filter(entry => nameOfEntry(entry) !== name))
}

async function entriesOf(paths: LayoutPaths): Promise<readonly Descriptor[]> {
  return (await readLayoutIndex(paths))?.manifests ?? []
}
