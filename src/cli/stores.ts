// Opens the store that the flags choose. This is the one place that knows which stores there are.

import {constants} from 'node:fs'
import {access} from 'node:fs/promises'
import {join, resolve} from 'node:path'
import {CodedError, hasCode} from '../lib/errors/coded-error.ts'
import type {Store} from '../lib/oci/image-store.ts'

export interface StoreChoice {
  readonly store: 'auto' | 'containerd' | 'local' | 'podman'
  /** Asked for when the store is a local one. */
  readonly dataDirectory: () => string
  /** containerd's socket; a leading `unix://` is allowed. */
  readonly address: string
  readonly namespace: string
  /** 0 for containerd's own default. */
  readonly connectTimeoutMs: number
  /** Told why `auto` does not take containerd. */
  readonly onFallback: (reason: string) => void
}

/** Where containerd listens unless somebody says otherwise. */
export const USUAL_ADDRESS = '/run/containerd/containerd.sock'

/** The store for a choice; `auto` takes containerd when we may talk to its socket. The caller disposes it. */
export async function openStore(choice: StoreChoice, signal: AbortSignal): Promise<Store> {
  if (choice.store === 'podman') {
    throw new CodedError(
      'unsupported',
      'Cannot do this with --store podman, whose images are layers that stargz-store mounts: image rpull, ls and rm and lazy status and prune can; use podman for the rest',
    )
  }
  const kind = choice.store === 'auto' ? await chooseStore(choice) : choice.store
  if (kind === 'containerd') {
    const {openContainerdStore} = await import('../lib/containerd/store.ts')
    return openContainerdStore({...choice, signal})
  }
  const {openLocalStore} = await import('../lib/layout/local-store.ts')
  return openLocalStore(join(choice.dataDirectory(), 'images'), {signal})
}

type Environment = Readonly<Record<string, string | undefined>>

/** The directory of everything that we keep for a user. Throws `failed-precondition` where there is no home. */
export function dataDirectory(flag: string | undefined, environment: Environment): string {
  const directory = flag ? resolve(flag) : ownDirectory(environment, 'XDG_DATA_HOME', '.local/share')
  if (directory !== undefined) return directory
  throw new CodedError(
    'failed-precondition',
    'Cannot choose a directory for the local store: set --data-dir, XDG_DATA_HOME or HOME',
  )
}

/** The directory of what saves work and may be lost: earlier conversions. */
export function memoryDirectory(flag: string | undefined, environment: Environment): string | undefined {
  const directory = flag ? resolve(flag) : ownDirectory(environment, 'XDG_CACHE_HOME', '.cache')
  return directory && join(directory, 'conversions')
}

/** Ours below a base directory of the XDG specification, which has relative paths ignored. */
function ownDirectory(environment: Environment, variable: string, fallback: string): string | undefined {
  const base = environment[variable]
  if (base?.startsWith('/')) return join(base, 'ctr-remote')
  return environment.HOME ? join(environment.HOME, fallback, 'ctr-remote') : undefined
}

async function chooseStore({address, onFallback}: StoreChoice): Promise<'containerd' | 'local'> {
  const path = address.replace(/^unix:\/\//, '')
  try {
    await access(path, constants.R_OK | constants.W_OK)
    return 'containerd'
  } catch (error) {
    onFallback(
      hasCode(error, 'not-found')
        ? `there is no socket "${path}"`
        : `this user may not use containerd's socket "${path}"`,
    )
    return 'local'
  }
}
