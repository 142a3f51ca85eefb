// Opens the place that an image location names. Adapters of other transports arrive as functions in the context.

import {CodedError} from '../errors/coded-error.ts'
import {createLayoutSource, createLayoutTarget} from '../layout/oci-directory.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {ImageSource, ImageTarget, Store} from '../oci/image-store.ts'
import {formatImageLocation, type ImageLocation} from './image-location.ts'
import {openStoreSource, openStoreTarget} from './store-image.ts'

/** What a transport needs that only the composition root has. */
export interface TransportContext extends CallOptions {
  /** Opens the store of plain names, once, when first asked for; the caller disposes it. */
  readonly store: () => Promise<Store>
  /** Opens the store that `containerd:` names; absent where there is none. */
  readonly containerdStore?: (() => Promise<Store>) | undefined
  /** Opens an image of a registry; the reference is what stands after `docker://`. */
  readonly registrySource: (reference: string) => ImageSource | Promise<ImageSource>
  readonly registryTarget: (reference: string) => ImageTarget | Promise<ImageTarget>
}

/** Opens an image for reading; the caller disposes it. Whether it exists shows when it is resolved. */
export async function openImageSource(
  location: ImageLocation,
  context: TransportContext,
): Promise<ImageSource> {
  switch (location.transport) {
    case 'store':
      return openStoreSource(await context.store(), location.name, context)
    case 'containerd':
      return openStoreSource(await containerdStore(context), location.name, context)
    case 'docker':
      return context.registrySource(location.reference)
    case 'oci':
      return createLayoutSource(location)
    case 'oci-archive':
    case 'docker-archive':
      throw unsupported(location)
  }
}

/** Opens a place for writing an image; the caller disposes it, and nothing shows before it publishes. */
export async function openImageTarget(
  location: ImageLocation,
  context: TransportContext,
): Promise<ImageTarget> {
  switch (location.transport) {
    case 'store':
      return openStoreTarget(await context.store(), location.name, context)
    case 'containerd':
      return openStoreTarget(await containerdStore(context), location.name, context)
    case 'docker':
      return context.registryTarget(location.reference)
    case 'oci':
      return createLayoutTarget(location, context)
    case 'oci-archive':
    case 'docker-archive':
      throw unsupported(location)
  }
}

async function containerdStore(context: TransportContext): Promise<Store> {
  if (!context.containerdStore) {
    throw new CodedError('unsupported', 'Cannot use "containerd:" locations: no containerd is configured')
  }
  return context.containerdStore()
}

function unsupported(location: ImageLocation): CodedError {
  return new CodedError('unsupported', `Cannot use "${formatImageLocation(location)}" yet`)
}
