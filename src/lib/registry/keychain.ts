// Keychains: where credentials come from. docker-config.ts makes one of files and helpers.

import {CodedError} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'

/** What a registry, or its token server, may be shown. */
export type Credential =
  | PasswordCredential
  /** A refresh token (docker's `identitytoken`), exchanged for access tokens by OAuth2. */
  | {readonly kind: 'identity'; readonly token: string}
  /** A bearer token that is sent as it is (docker's `registrytoken`). */
  | {readonly kind: 'bearer'; readonly token: string}

export interface PasswordCredential {
  readonly kind: 'password'
  readonly username: string
  readonly password: string
}

export interface Keychain {
  /**
   * The credential for a repository `path` on `host` (with its port, if any; `docker.io` for Docker Hub); undefined
   * when there is none. Asked again after a credential was refused, so it should look afresh.
   */
  find(host: string, path: string, options?: CallOptions): Promise<Credential | undefined>
}

/** No credentials: every request is anonymous. */
export const ANONYMOUS: Keychain = {find: async () => undefined}

/**
 * Asks several keychains, the first that knows a host counts. One that fails is told to `onFailure`, and the next is
 * asked: a broken file must not keep a process that runs for long from registries that need no credentials.
 */
export function chainKeychains(
  keychains: readonly Keychain[],
  onFailure: (error: unknown) => void,
): Keychain {
  return {
    async find(host, path, options) {
      for (const keychain of keychains) {
        try {
          const found = await keychain.find(host, path, options)
          if (found) return found
        } catch (error) {
          options?.signal?.throwIfAborted()
          onFailure(error)
        }
      }
      return undefined
    },
  }
}

/** The credential that `--user NAME:PASSWORD` gives; the password may hold colons. Throws `invalid-argument`. */
export function parseUser(text: string): PasswordCredential {
  const colon = text.indexOf(':')
  if (colon <= 0) {
    throw new CodedError('invalid-argument', 'Cannot use the value of --user: expected "NAME:PASSWORD"')
  }
  return {kind: 'password', username: text.slice(0, colon), password: text.slice(colon + 1)}
}
