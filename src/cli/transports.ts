// Every kind of place for images, put together; each is loaded when it is first used.

import type {Store} from '../lib/oci/image-store.ts'
import type {Registry} from '../lib/registry/registry.ts'
import type {TransportContext} from '../lib/transport/open-image.ts'
import type {SessionFlags} from './session.ts'

/** What transports are made from. */
export interface TransportSettings {
  readonly flags: SessionFlags
  readonly userAgent: string
  readonly signal: AbortSignal
  readonly store: () => Promise<Store>
  readonly containerdStore: () => Promise<Store>
  readonly say: (message: string) => void
}

/** Transports, and what they hold open. */
export interface Transports extends TransportContext, AsyncDisposable {
  /** References whose blobs a registry target may mount; what is added counts for targets opened later. */
  readonly mountFrom: string[]
}

export function createTransports(settings: TransportSettings): Transports {
  const {signal, store, containerdStore} = settings
  let opened: Promise<Registry> | undefined
  const openRegistry = () => (opened ??= openRegistryFor(settings))
  // Layers that come from a registry and go back to it need not travel.
  const mountFrom: string[] = []
  return {
    signal,
    store,
    containerdStore,
    mountFrom,
    registry: {
      source: async reference => {
        const registry = await openRegistry()
        mountFrom.push(reference)
        return (await registryImages()).createRegistryImageSource(reference, {registry})
      },
      target: async reference => {
        const registry = await openRegistry()
        return (await registryImages()).createRegistryImageTarget(reference, {registry, mountFrom})
      },
    },
    layout: {
      source: async image => (await layouts()).createLayoutSource(image),
      target: async (...image) => (await layouts()).createLayoutTarget(...image),
    },
    ociArchive: {
      source: async (...image) => (await archives()).openOciArchiveSource(...image),
      target: async image => (await archives()).openOciArchiveTarget(image),
    },
    dockerArchive: {
      source: async (...image) => (await archives()).openDockerArchiveSource(...image),
      target: async image => (await archives()).openDockerArchiveTarget(image),
    },
    [Symbol.asyncDispose]: async () => (await opened)?.[Symbol.asyncDispose](),
  }
}

const registryImages = () => import('../lib/registry/image.ts')
const layouts = () => import('../lib/layout/oci-directory.ts')
const archives = () => import('../lib/archive/archive-transports.ts')

async function openRegistryFor({flags, userAgent, signal, say}: TransportSettings): Promise<Registry> {
  const {openRegistry} = await import('../lib/registry/registry.ts')
  const {registryOptions} = await import('./registry.ts')
  const {completeCredentials} = await import('./password.ts')
  const creds = await completeCredentials(flags.creds, signal)
  const user = {env: process.env, uid: process.getuid?.(), userAgent}
  return openRegistry(registryOptions({...flags, creds}, user, say))
}
