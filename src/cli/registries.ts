// The clients of registries that the flags describe; each is opened when it is first used.

import {CodedError} from '../lib/errors/coded-error.ts'
import type {Registry} from '../lib/registry/registry.ts'
import type {RegistryFlags} from './registry-options.ts'
import type {SessionFlags} from './session-flags.ts'

/** What clients are made from. */
export interface RegistrySettings {
  readonly flags: SessionFlags
  readonly userAgent: string
  readonly signal: AbortSignal
  readonly say: (message: string) => void
}

export interface Registries extends AsyncDisposable {
  /** The client for the registry of a reference, which is read or written. */
  open(role: 'source' | 'target', reference: string): Promise<Registry>
}

/** Whose credentials a role may have for itself. */
const OWN_CREDENTIALS = {source: 'src-creds', target: 'dest-creds'} as const

/** One client for everything, and another where the flags have credentials for the source or the target alone. */
export function createRegistries(settings: RegistrySettings): Registries {
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
      const creds = flags[OWN_CREDENTIALS[role]]
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
  {userAgent, signal, say}: RegistrySettings,
  flags: RegistryFlags,
): Promise<Registry> {
  const {openRegistry} = await import('../lib/registry/registry.ts')
  const {registryOptions} = await import('./registry-options.ts')
  const {completeCredentials} = await import('./password.ts')
  const creds = await completeCredentials(flags.creds, signal)
  const user = {env: process.env, uid: process.getuid?.(), userAgent}
  return openRegistry(registryOptions({...flags, creds}, user, say))
}
