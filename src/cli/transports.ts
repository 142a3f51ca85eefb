// Every kind of place for images, put together.

import {
  openDockerArchiveSource,
  openDockerArchiveTarget,
  openOciArchiveSource,
  openOciArchiveTarget,
} from '../lib/archive/archive-transports.ts'
import {createLayoutSource, createLayoutTarget} from '../lib/layout/oci-directory.ts'
import type {Store} from '../lib/oci/image-store.ts'
import {createRegistryImageSource, createRegistryImageTarget} from '../lib/registry/image.ts'
import {openRegistry} from '../lib/registry/registry.ts'
import type {TransportContext} from '../lib/transport/open-image.ts'
import {registryOptions} from './registry.ts'
import type {SessionFlags} from './session.ts'

/** What transports are made from. */
export interface TransportSettings {
  readonly flags: SessionFlags
  readonly userAgent: string
  readonly signal: AbortSignal
  readonly store: () => Promise<Store>
  readonly say: (message: string) => void
}

/** Transports, and what they hold open. */
export function openTransports(settings: TransportSettings): TransportContext & AsyncDisposable {
  const {flags, signal, store, say, userAgent} = settings
  const user = {env: process.env, uid: process.getuid?.(), userAgent}
  const registry = openRegistry(registryOptions(flags, user, say))
  // Layers that come from a registry and go back to it need not travel.
  const mountFrom: string[] = []
  return {
    signal,
    store,
    registry: {
      source: reference => {
        mountFrom.push(reference)
        return createRegistryImageSource(reference, {registry})
      },
      target: reference => createRegistryImageTarget(reference, {registry, mountFrom}),
    },
    layout: {source: createLayoutSource, target: createLayoutTarget},
    ociArchive: {source: openOciArchiveSource, target: openOciArchiveTarget},
    dockerArchive: {source: openDockerArchiveSource, target: openDockerArchiveTarget},
    [Symbol.asyncDispose]: () => registry[Symbol.asyncDispose](),
  }
}
