// Every kind of place for images, put together; each is loaded when it is first used.

import {CodedError} from '../lib/errors/coded-error.ts'
import type {Store} from '../lib/oci/image-store.ts'
import type {Registry} from '../lib/registry/registry.ts'
import type {TransportContext} from '../lib/transport/open-image.ts'
import type {RegistryFlags} from './registry.ts'
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
  const registries = createRegistries(settings)
  // Layers that come from a registry and go back to it need not travel.
  const mountFrom: string[] = []
  return {
    signal,
    store,
    containerdStore,
    mountFrom,
    registry: {
      source: async reference => {
        const registry = await registries.open('src-creds', reference)
        mountFrom.push(reference)
        return (await registryImages()).createRegistryImageSource(reference, {registry})
      },
      target: async reference => {
        const registry = await registries.open('dest-creds', reference)
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
    [Symbol.asyncDispose]: registries[Symbol.asyncDispose],
  }
}

const registryImages = () => import('../lib/registry/image.ts')
const layouts = () => import('../lib/layout/oci-directory.ts')
const archives = () => import('../lib/archive/archive-transports.ts')

interface Registries extends AsyncDisposable {
  /** The registry client for an image that is read or written. */
  open(role: 'src-creds' | 'dest-creds', reference: string): Promise<Registry>
}

/** One client for everything, and another where the flags have credentials for the source or the target alone. */
function createRegistries(settings: TransportSettings): Registries {
  const {flags} = settings
  const opened = new Map<string | undefined, Promise<Registry>>()
  /** The registry that credentials without a role have been used for. */
  let owner: string | undefined

  async function checkOwner(reference: string): Promise<void> {
    if (!flags.creds && !flags.refresh) return
    const {parseReference} = await import('../lib/oci/reference.ts')
    const {domain} = parseReference(reference)
    owner ??= domain
    if (domain === owner) return
    throw new CodedError(
      'invalid-argument',
      `Cannot use the same credentials for ${owner} and ${domain}: say whose they are with --src-creds or --dest-creds`,
    )
  }

  return {
    async open(role, reference) {
      const creds = flags[role]
      if (creds === undefined) await checkOwner(reference)
      const key = creds === undefined ? undefined : role
      const registry = opened.get(key) ?? openRegistryFor(settings, {...flags, ...ownCredentials(creds)})
      opened.set(key, registry)
      return registry
    },
    async [Symbol.asyncDispose]() {
      for (const registry of opened.values()) await (await registry)[Symbol.asyncDispose]()
    },
  }
}

/** Those of one role take the place of the others. */
function ownCredentials(creds: string | undefined): RegistryFlags {
  return creds === undefined ? {} : {creds, refresh: undefined}
}

async function openRegistryFor(
  {userAgent, signal, say}: TransportSettings,
  flags: RegistryFlags,
): Promise<Registry> {
  const {openRegistry} = await import('../lib/registry/registry.ts')
  const {registryOptions} = await import('./registry.ts')
  const {completeCredentials} = await import('./password.ts')
  const creds = await completeCredentials(flags.creds, signal)
  const user = {env: process.env, uid: process.getuid?.(), userAgent}
  return openRegistry(registryOptions({...flags, creds}, user, say))
}
