// Who we are to each registry: basic or bearer authorization, tokens cached per host and scope, credentials kept here.

import {CodedError, hasCode} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {type Challenge, mergeScopes, parseChallenges} from './challenge.ts'
import type {Endpoint} from './endpoint.ts'
import type {HttpResponse} from './http.ts'
import type {Credential, Keychain} from './keychain.ts'
import {fetchToken, type Token, type TokenSender} from './token.ts'

export interface Authorizer {
  /** The Authorization header to send, from what is known of the endpoint; undefined for an anonymous request. */
  header(endpoint: Endpoint, scopes: readonly string[], options: CallOptions): Promise<string | undefined>
  /** Learns from a 401 to a request that carried `sent`; resolves to whether another attempt makes sense. */
  learn(
    endpoint: Endpoint,
    response: HttpResponse,
    refused: {readonly scopes: readonly string[]; readonly sent: string | undefined},
    options: CallOptions,
  ): Promise<boolean>
}

/** What an endpoint's challenges taught us. */
type Method =
  | {readonly kind: 'basic'; readonly header: string}
  | {
      readonly kind: 'bearer'
      readonly params: Challenge['params']
      /** The registry's own word for what we asked for, by our word: behind a mirror's path they differ. */
      readonly askedScopes: Map<string, string>
    }

/** Where credentials come from: what the user gave for this registry, before what the keychain holds. */
export interface CredentialSources {
  readonly keychain: Keychain
  /** Never given to mirrors. */
  readonly credential?: Credential | undefined
}

/** An authorizer for the life of a session; `send` makes the requests to token servers. */
export function createAuthorizer(sources: CredentialSources, send: TokenSender): Authorizer {
  const methods = new Map<string, Method>()
  /** Where hosts have sent us for tokens: it is the same for their other repositories, and knowing it saves a 401. */
  const tokenServers = new Map<string, Challenge['params']>()
  const tokens = new Map<string, Promise<Token>>()

  async function credentialFor(endpoint: Endpoint, options: CallOptions): Promise<Credential | undefined> {
    if (!endpoint.mayAuthenticate) return undefined
    if (sources.credential && endpoint.namespace === undefined) return sources.credential
    return sources.keychain.find(endpoint.keychainHost, endpoint.path, options)
  }

  async function newToken(
    endpoint: Endpoint,
    params: Challenge['params'],
    scopes: readonly string[],
    options: CallOptions,
  ): Promise<Token> {
    const credential = await credentialFor(endpoint, options)
    return fetchToken({endpoint, params, scopes, credential, send}, options)
  }

  /** Single-flight: blobs that are fetched in parallel share one token request. */
  async function sharedToken(
    endpoint: Endpoint,
    params: Challenge['params'],
    scopes: readonly string[],
    options: CallOptions,
  ): Promise<Token> {
    const key = JSON.stringify([endpoint.origin, endpoint.path, params.realm, params.service, scopes])
    for (;;) {
      options.signal?.throwIfAborted()
      const shared = tokens.get(key)
      const pending = shared ?? newToken(endpoint, params, scopes, options)
      if (!shared) tokens.set(key, pending)
      try {
        const token = await pending
        // A token that this call has asked for is used, however short its life: asking again would give no longer one.
        if (!shared || token.expiresAtMs > Date.now()) return token
        if (tokens.get(key) === pending) tokens.delete(key)
      } catch (error) {
        if (tokens.get(key) === pending) tokens.delete(key)
        // Another caller's abort is no reason for this one to fail.
        if (!shared || !hasCode(error, 'cancelled')) throw error
      }
    }
  }

  /** A guess: when it fails, the request goes without, and what the host answers is what counts. */
  async function headerFromTokenServer(
    endpoint: Endpoint,
    scopes: readonly string[],
    options: CallOptions,
  ): Promise<string | undefined> {
    const params = tokenServers.get(endpoint.origin)
    if (!params) return undefined
    try {
      return `Bearer ${(await sharedToken(endpoint, params, mergeScopes(scopes), options)).value}`
    } catch {
      options.signal?.throwIfAborted()
      return undefined
    }
  }

  function forget(sent: string): void {
    for (const [key, pending] of tokens) {
      void pending.then(
        token => `Bearer ${token.value}` === sent && tokens.delete(key),
        () => undefined,
      )
    }
  }

  return {
    async header(endpoint, scopes, options) {
      const method = methods.get(methodKey(endpoint))
      if (!method) return headerFromTokenServer(endpoint, scopes, options)
      if (method.kind === 'basic') return method.header
      const wanted = mergeScopes(scopes)
      const asked = method.askedScopes.get(wanted.join(' '))
      const merged = asked === undefined ? wanted : mergeScopes([...wanted, asked])
      return `Bearer ${(await sharedToken(endpoint, method.params, merged, options)).value}`
    },

    async learn(endpoint, response, {scopes, sent}, options) {
      const challenges = parseChallenges(response.headers('www-authenticate'))
      const bearer = challenges.find(challenge => challenge.scheme === 'bearer' && challenge.params.realm)
      if (bearer) {
        const known = methods.get(methodKey(endpoint))
        const askedScopes = known?.kind === 'bearer' ? known.askedScopes : new Map<string, string>()
        if (bearer.params.scope) askedScopes.set(mergeScopes(scopes).join(' '), bearer.params.scope)
        methods.set(methodKey(endpoint), {kind: 'bearer', params: bearer.params, askedScopes})
        tokenServers.set(endpoint.origin, bearer.params)
        if (sent) forget(sent)
        return true
      }
      if (!challenges.some(challenge => challenge.scheme === 'basic')) return false
      const credential = await credentialFor(endpoint, options)
      if (!credential) return false
      const header = basicHeader(endpoint, credential)
      methods.set(methodKey(endpoint), {kind: 'basic', header})
      return header !== sent
    },
  }
}

/** Credentials may differ between repositories of one host (containers-auth.json namespaces). */
function methodKey(endpoint: Endpoint): string {
  return `${endpoint.origin}/${endpoint.path}`
}

function basicHeader(endpoint: Endpoint, credential: Credential): string {
  switch (credential.kind) {
    case 'password':
      return `Basic ${Buffer.from(`${credential.username}:${credential.password}`).toString('base64')}`
    case 'bearer':
      return `Bearer ${credential.token}`
    case 'identity':
      throw new CodedError(
        'unauthenticated',
        `Cannot log in to ${endpoint.host}: it wants a password, and the keychain holds an identity token`,
      )
  }
}
