// Credentials from a cluster: every secret of type kubernetes.io/dockerconfigjson that this kubeconfig may see.

import {setTimeout as sleep} from 'node:timers/promises'
import {describeError, hasCode} from '../errors/coded-error.ts'
import {parseDockerAuths} from '../registry/docker-config.ts'
import type {Credential, Keychain} from '../registry/keychain.ts'
import {readKubeconfig} from './kubeconfig.ts'
import {type Secret, type SecretListener, watchSecrets} from './watch-secrets.ts'

const SECRET_TYPE = 'kubernetes.io/dockerconfigjson'
const SECRET_KEY = '.dockerconfigjson'
/** Between attempts to read the kubeconfig, or to reach the API server. */
const RETRY_MS = 10_000

export interface KubernetesKeychainOptions {
  /** Path of the kubeconfig; it may appear later. */
  readonly path: string
  /** Told why there are no credentials now, once per reason. */
  readonly onFailure: (reason: string) => void
  readonly retryMs?: number
}

/** Follows the cluster until disposed. */
export interface KubernetesKeychain extends Keychain, AsyncDisposable {
  /** Resolves when the secrets have been listed for the first time. */
  readonly synced: Promise<void>
}

/** Opens the keychain and begins to follow the cluster; it knows nothing until the first list is there. */
export function openKubernetesKeychain(options: KubernetesKeychainOptions): KubernetesKeychain {
  const abort = new AbortController()
  const {signal} = abort
  const finders = new Map<string, ReturnType<typeof parseDockerAuths>>()
  let synced = (): void => {}
  const firstList = new Promise<void>(resolve => (synced = resolve))
  let told = ''

  function tell(reason: string): void {
    if (reason !== told) options.onFailure(reason)
    told = reason
  }

  function set({key, data}: Secret): void {
    finders.delete(key)
    const value = data[SECRET_KEY]
    if (typeof value !== 'string') return
    try {
      finders.set(key, parseDockerAuths(Buffer.from(value, 'base64').toString('utf8'), `secret ${key}`))
    } catch (error) {
      tell(describeError(error))
    }
  }

  const listener: SecretListener = {
    reset(secrets) {
      finders.clear()
      secrets.forEach(set)
      told = ''
      synced()
    },
    set,
    delete: key => void finders.delete(key),
  }

  async function run(): Promise<void> {
    while (!signal.aborted) {
      try {
        await watchSecrets(await readKubeconfig(options.path), SECRET_TYPE, listener, signal)
      } catch (error) {
        if (signal.aborted) return
        tell(
          hasCode(error, 'not-found') ? `There is no kubeconfig "${options.path}" yet` : describeError(error),
        )
      }
      await sleep(options.retryMs ?? RETRY_MS, undefined, {signal}).catch(() => {})
    }
  }

  const running = run()
  return {
    synced: firstList,
    async find(host, path): Promise<Credential | undefined> {
      // In the order of their names, so that which of several counts does not change with their order of arrival.
      for (const key of [...finders.keys()].toSorted()) {
        const found = finders.get(key)!(host, path)
        if (found) return found
      }
      return undefined
    },
    async [Symbol.asyncDispose]() {
      abort.abort()
      await running
    },
  }
}
