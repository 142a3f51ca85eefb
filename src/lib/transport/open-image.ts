// Opens the place that an image location names. What knows the outside world arrives in the context.

import {CodedError} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {ImageSource, ImageTarget, Store} from '../oci/image-store.ts'
import type {DockerArchiveLocation, ImageLocation} from './image-location.ts'
import {openStoreSource, openStoreTarget} from './store-image.ts'

/** How one kind of location is opened. Opening a target changes nothing that anyone else sees. */
export interface Transport<Location> {
  source(location: Location, options: CallOptions): ImageSource | Promise<ImageSource>
  target(location: Location, options: CallOptions): ImageTarget | Promise<ImageTarget>
}

/** An image of a layout, in a directory or an archive. */
export interface LayoutLocation {
  readonly path: string
  readonly tag?: string
}

/** What opening needs that only the composition root has. */
export interface TransportContext extends CallOptions {
  /** Opens the store of plain names, once, when first asked for; the caller disposes it. */
  readonly store: () => Promise<Store>
  /** Opens the store that `containerd:` names; absent where there is none. */
  readonly containerdStore?: (() => Promise<Store>) | undefined
  readonly registry: Transport<string>
  readonly layout: Transport<LayoutLocation>
  readonly ociArchive: Transport<LayoutLocation>
  readonly dockerArchive: Transport<DockerArchiveLocation>
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
      return context.registry.source(location.reference, context)
    case 'oci':
      return context.layout.source(location, context)
    case 'oci-archive':
      return context.ociArchive.source(location, context)
    case 'docker-archive':
      return context.dockerArchive.source(location, context)
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
      return context.registry.target(location.reference, context)
    case 'oci':
      return context.layout.target(location, context)
    case 'oci-archive':
      return context.ociArchive.target(location, context)
    case 'docker-archive':
      return context.dockerArchive.target(location, context)
  }
}

async function containerdStore(context: TransportContext): Promise<Store> {
  if (!context.containerdStore) {
    throw new CodedError('unsupported', 'Cannot use "containerd:" locations: no containerd is configured')
  }
  return context.containerdStore()
}
