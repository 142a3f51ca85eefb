// Who we are to each registry: basic or bearer authorization, tokens cached per host and scope, credentials kept here.

import {CodedError} from '../errors/coded-error.ts'
import {basicAuthorization} from '../io/basic-authorization.ts'
import {raceAbort} from '../io/race-abort.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {type Challenge, mergeScopes, parseChallenges} from './challenge.ts'
import type {Endpoint} from './endpoint.ts'
import type {HttpResponse} from './http.ts'
import type {Credential, Keychain} from './keychain.ts'
import {fetchToken, type Token, type TokenSender} from './token.ts'

/** What an endpoint's challenges taught us. */
type Method =
  | {readonly kind: 'basic'; readonly header: string}
  | {
      readonly kind: 'bearer'
      readonly params: Challenge['params']
      /** The registry's own word for what we asked for, by our word: behind a mirror's path they differ. */
      readonly askedScopes: Map<string, string>
    }

/** A token that has been asked for, by a call that may be aborted. */
interface PendingToken {
  readonly token: Promise<Token>
  readonly signal: AbortSignal | undefined
}

/** Where credentials come from: what the user gave for this registry, before what the keychain holds. */
export interface CredentialSources {
  readonly keychain: Keychain
  /** Never given to mirrors. */
  readonly credential?: Credential | undefined
}

/** An authorizer for the life of a session. */
export class Authorizer {
  readonly #sources: CredentialSources
  readonly #send: TokenSender
  readonly #methods = new Map<string, Method>()
  /** Where hosts have sent us for tokens: it is the same for their other repositories, and knowing it saves a 401. */
  readonly #tokenServers = new Map<string, Challenge['params']>()
  readonly #tokens = new Map<string, PendingToken>()

  /** `send` makes the requests to token servers. */
  constructor(sources: CredentialSources, send: TokenSender) {
    this.#sources = sources
    this.#send = send
  }

  /** The Authorization header to send, from what is known of the endpoint; undefined for an anonymous request. */
  async header(
    endpoint: Endpoint,
    scopes: readonly string[],
    options: CallOptions,
  ): Promise<string | undefined> {
    const method = this.#methods.get(methodKey(endpoint))
    if (!method) return this.#headerFromTokenServer(endpoint, scopes, options)
    if (method.kind === 'basic') return method.header
    const wanted = mergeScopes(scopes)
    const asked = method.askedScopes.get(wanted.join(' '))
    const merged = asked === undefined ? wanted : mergeScopes([...wanted, asked])
    return `Bearer ${(await this.#sharedToken(endpoint, method.params, merged, options)).value}`
  }

  /** Learns from a 401 to a request that carried `sent`; resolves to whether another attempt makes sense. */
  async learn(
    endpoint: Endpoint,
    response: HttpResponse,
    {scopes, sent}: {readonly scopes: readonly string[]; readonly sent: string | undefined},
    options: CallOptions,
  ): Promise<boolean> {
    const challenges = parseChallenges(response.headers('www-authenticate'))
    const bearer = challenges.find(challenge => challenge.scheme === 'bearer' && challenge.params.realm)
    if (bearer) {
      const known = this.#methods.get(methodKey(endpoint))
      const askedScopes = known?.kind === 'bearer' ? known.askedScopes : new Map<string, string>()
      if (bearer.params.scope) askedScopes.set(mergeScopes(scopes).join(' '), bearer.params.scope)
      this.#methods.set(methodKey(endpoint), {kind: 'bearer', params: bearer.params, askedScopes})
      this.#tokenServers.set(endpoint.origin, bearer.params)
      if (sent) this.#forget(sent)
      return true
    }
    if (!challenges.some(challenge => challenge.scheme === 'basic')) return false
    const credential = await this.#credentialFor(endpoint, options)
    if (!credential) return false
    const header = basicHeader(endpoint, credential)
    this.#methods.set(methodKey(endpoint), {kind: 'basic', header})
    return header !== sent
  }

  /** A guess: when it fails, the request goes without, and what the host answers is what counts. */
  async #headerFromTokenServer(
    endpoint: Endpoint,
    scopes: readonly string[],
    options: CallOptions,
  ): Promise<string | undefined> {
    const params = this.#tokenServers.get(endpoint.origin)
    if (!params) return undefined
    try {
      return `Bearer ${(await this.#sharedToken(endpoint, params, mergeScopes(scopes), options)).value}`
    } catch {
      options.signal?.throwIfAborted()
      return undefined
    }
  }

  /** Single-flight: blobs that are fetched in parallel share one token request. */
  async #sharedToken(
    endpoint: Endpoint,
    params: Challenge['params'],
    scopes: readonly string[],
    options: CallOptions,
  ): Promise<Token> {
    const key = JSON.stringify([endpoint.origin, endpoint.path, params.realm, params.service, scopes])
    for (;;) {
      options.signal?.throwIfAborted()
      const shared = this.#tokens.get(key)
      const pending = shared ?? {
        token: this.#newToken(endpoint, params, scopes, options),
        signal: options.signal,
      }
      if (!shared) this.#tokens.set(key, pending)
      try {
        const token = await raceAbort(pending.token, options.signal)
        // A token that this call has asked for is used, however short its life: asking again would give no longer one.
        if (!shared || token.expiresAtMs > Date.now()) return token
        if (this.#tokens.get(key) === pending) this.#tokens.delete(key)
      } catch (error) {
        // Who gives up waiting takes nothing from those who go on.
        if (shared && options.signal?.aborted) throw error
        if (this.#tokens.get(key) === pending) this.#tokens.delete(key)
        // Another caller's abort, or its time limit, is no reason for this one to fail.
        if (!shared || !pending.signal?.aborted) throw error
      }
    }
  }

  async #newToken(
    endpoint: Endpoint,
    params: Challenge['params'],
    scopes: readonly string[],
    options: CallOptions,
  ): Promise<Token> {
    const credential = await this.#credentialFor(endpoint, options)
    return fetchToken({endpoint, params, scopes, credential, send: this.#send}, options)
  }

  async #credentialFor(endpoint: Endpoint, options: CallOptions): Promise<Credential | undefined> {
    if (!endpoint.mayAuthenticate) return undefined
    if (this.#sources.credential && endpoint.namespace === undefined) return this.#sources.credential
    return this.#sources.keychain.find(endpoint.keychainHost, endpoint.path, options)
  }

  #forget(sent: string): void {
    for (const [key, pending] of this.#tokens) {
      void pending.token.then(
        token => `Bearer ${token.value}` === sent && this.#tokens.delete(key),
        () => undefined,
      )
    }
  }
}

/** Credentials may differ between repositories of one host (containers-auth.json namespaces). */
function methodKey(endpoint: Endpoint): string {
  return `${endpoint.origin}/${endpoint.path}`
}

function basicHeader(endpoint: Endpoint, credential: Credential): string {
  switch (credential.kind) {
    case 'password':
      return basicAuthorization(credential)
    case 'bearer':
      return `Bearer ${credential.token}`
    case 'identity':
      throw new CodedError(
        'unauthenticated',
        `Cannot log in to ${endpoint.host}: it wants a password, and the keychain holds an identity token`,
      )
  }
}
