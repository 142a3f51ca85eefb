// Images of a store as sources and targets, and how their names are found.

import {CodedError} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {ImageRecord, ImageSource, ImageTarget, Store} from '../oci/image-store.ts'
import {formatReference, parseReference, withDefaultTag} from '../oci/reference.ts'

/** `debian` in full: `docker.io/library/debian:latest`. Throws `invalid-argument`. */
export function canonicalImageName(name: string): string {
  return formatReference(withDefaultTag(parseReference(name)))
}

/** The image that a person means by `name`: of exactly that name, else of that name in full. Throws `not-found`. */
export async function findImage(store: Store, name: string, options: CallOptions = {}): Promise<ImageRecord> {
  const exact = await store.images.get(name, options)
  if (exact) return exact
  const canonical = canonicalImageName(name)
  const image = canonical === name ? undefined : await store.images.get(canonical, options)
  if (image) return image
  throw new CodedError('not-found', `Cannot find image "${name}" in the ${store.kind} store "${store.name}"`)
}

/** The name that a new image gets: `ctr` takes names literally, and containerd users count on that. */
export function newImageName(store: Store, name: string): string {
  return store.kind === 'containerd' ? name : canonicalImageName(name)
}

/** Opens an image of a store; a lease keeps it complete while it is read, whoever removes it meanwhile. */
export async function openStoreSource(
  store: Store,
  name: string,
  options: CallOptions = {},
): Promise<ImageSource> {
  const lease = await leaseToRead(store, options)
  return {
    name,
    content: store.content,
    async resolve(call = {}) {
      const {target} = await findImage(store, name, call)
      // Asking for it under the lease is what makes it stay, with all that it refers to.
      await store.content.info(target, call)
      return target
    },
    [Symbol.asyncDispose]: async () => lease?.[Symbol.asyncDispose](),
  }
}

/** Opens a name of a store for writing; a lease keeps what is written until the target is disposed. */
export async function openStoreTarget(
  store: Store,
  name: string,
  options: CallOptions = {},
): Promise<ImageTarget> {
  const newName = newImageName(store, name)
  const lease = await store.lease(options)
  return {
    name: newName,
    content: store.content,
    prepare: async (root, call) => store.images.link?.(root, call),
    async publish(root, call = {}) {
      await store.images.put(newName, root, call)
    },
    [Symbol.asyncDispose]: () => lease[Symbol.asyncDispose](),
  }
}

/** A store that we cannot write to can be read all the same; only a collector could take its content away. */
async function leaseToRead(store: Store, options: CallOptions): Promise<AsyncDisposable | undefined> {
  try {
    return await store.lease(options)
  } catch (error) {
    if (error instanceof CodedError && error.code === 'permission-denied') return undefined
    throw error
  }
}
