// The transport `oci:PATH[:TAG]`: one image of an OCI image layout directory, with skopeo's rules.

import {rmdir} from 'node:fs/promises'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import {REF_NAME} from '../oci/annotations.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {type Descriptor, withAnnotations} from '../oci/descriptor.ts'
import type {ImageSource, ImageTarget} from '../oci/image-store.ts'
import {createBlobFiles} from './blob-files.ts'
import {chooseEntry} from './choose-entry.ts'
import {withLock} from './directory-lock.ts'
import {nameOfEntry, plainTarget} from './image-entries.ts'
import {changeLayoutIndex, ensureLayout, readLayoutIndex} from './layout-index.ts'
import {type LayoutPaths, layoutPaths} from './layout-paths.ts'
import type {Lease} from './leases.ts'
import {takeLease} from './local-store.ts'
import {writeError} from './staged-file.ts'

/** Which image of a layout; without `tag`, a source must hold exactly one. */
export interface LayoutImage {
  readonly path: string
  readonly tag?: string | undefined
}

/** Opens an image for reading; nothing is written, so a read-only directory serves. */
export function createLayoutSource(image: LayoutImage): ImageSource {
  const paths = layoutPaths(image.path)
  const name = nameOf(image)
  return {
    name,
    content: createBlobFiles(paths, {name, labels: false, leases: new Set()}),
    async resolve(options = {}) {
      options.signal?.throwIfAborted()
      const index = await readLayoutIndex(paths)
      if (!index) throw new CodedError('not-found', `Cannot find an OCI image layout in "${image.path}"`)
      return chooseEntry(index.manifests, image.tag, name)
    },
    async [Symbol.asyncDispose]() {},
  }
}

/**
 * Opens an image for writing; the directory becomes a layout if it is none, and keeps its other images. A lease keeps
 * what is written until the target is disposed; then nothing of ours but an empty lock is left beside the layout.
 */
export async function createLayoutTarget(
  image: LayoutImage,
  options: CallOptions = {},
): Promise<ImageTarget> {
  const paths = layoutPaths(image.path)
  await readLayoutIndex(paths)
  const leases = new Set<Lease>()
  const lease = await takeLease(paths, leases, options).catch(cause => {
    throw writeError({root: image.path}, cause)
  })
  const name = nameOf(image)
  return {
    name,
    content: createBlobFiles(paths, {name, labels: false, leases}),
    publish: (root, call = {}) =>
      withLock(paths.lock, call, async () => {
        await ensureLayout(paths)
        await changeLayoutIndex(paths, entries => addEntry(entries, root, image.tag))
      }).catch(cause => {
        throw writeError(paths, cause)
      }),
    async [Symbol.asyncDispose]() {
      await lease[Symbol.asyncDispose]()
      await withLock(paths.lock, {}, () => removeTraces(paths))
    },
  }
}

/** As skopeo: a tag moves to the new root, and its old holder stays without one. A root needs one entry to be kept. */
function addEntry(
  entries: readonly Descriptor[],
  root: Descriptor,
  tag: string | undefined,
): readonly Descriptor[] {
  const target = plainTarget(root)
  if (tag === undefined) {
    return entries.some(entry => entry.digest === root.digest) ? entries : [...entries, target]
  }
  const others = entries
    .map(entry => (entry.annotations?.[REF_NAME] === tag ? plainTarget(entry) : entry))
    .filter(entry => entry.digest !== root.digest || nameOfEntry(entry) !== undefined)
  return [...others, withAnnotations(target, {[REF_NAME]: tag})]
}

/** The lock stays, because another process may be waiting for it. */
async function removeTraces(paths: LayoutPaths): Promise<void> {
  for (const directory of [paths.ingest, paths.leases]) {
    await rmdir(directory).catch(error => {
      const inUse = error instanceof Error && 'code' in error && error.code === 'ENOTEMPTY'
      if (!inUse && !hasCode(error, 'not-found')) throw error
    })
  }
}

function nameOf({path, tag}: LayoutImage): string {
  return tag === undefined ? `oci:${path}` : `oci:${path}:${tag}`
}
