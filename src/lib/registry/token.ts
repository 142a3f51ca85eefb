// Bearer tokens (distribution token and OAuth2 specs): asking a registry's token server for one.

import {CodedError} from '../errors/coded-error.ts'
import {basicAuthorization} from '../io/basic-authorization.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {isRecord} from '../oci/descriptor.ts'
import type {Endpoint} from './endpoint.ts'
import type {HttpRequest, HttpResponse} from './http.ts'
import type {Credential} from './keychain.ts'
import {isLoopbackHost} from './proxy.ts'
import {errorFromResponse, readBounded} from './registry-error.ts'

/** An access token, good until `expiresAtMs` (epoch). */
export interface Token {
  readonly value: string
  readonly expiresAtMs: number
}

/** Sends one request to a token server, with the session's retries. */
export type TokenSender = (
  request: Pick<HttpRequest, 'method' | 'url' | 'headers' | 'body'>,
  options: CallOptions & {readonly endpoint: Endpoint; readonly action: string},
) => Promise<HttpResponse>

export interface TokenRequest {
  readonly endpoint: Endpoint
  /** The parameters of the bearer challenge; `realm` is present. */
  readonly params: Readonly<Record<string, string>>
  readonly scopes: readonly string[]
  readonly credential: Credential | undefined
  readonly send: TokenSender
}

const CLIENT_ID = 'ctr-remote'
/** Largest token response, bytes; tokens themselves run to a few KiB. */
const MAX_TOKEN_RESPONSE = 256 * 1024
/** Life of a token that does not say (token spec: 60 s). */
const DEFAULT_LIFETIME_S = 60
/** A token this close to its end is not used for a new request. */
const EXPIRY_MARGIN_MS = 5_000

/** Gets a token for `scopes`; throws `unauthenticated` when the token server refuses. */
export async function fetchToken(request: TokenRequest, options: CallOptions): Promise<Token> {
  const {credential, endpoint, send} = request
  if (credential?.kind === 'bearer') return {value: credential.token, expiresAtMs: Number.POSITIVE_INFINITY}
  const realm = parseRealm(request)
  const action = `get a token for ${endpoint.host}`
  const message =
    credential?.kind === 'identity'
      ? oauthRequest(realm, request, credential.token)
      : plainRequest(realm, request, credential)
  const response = await send(message, {...options, endpoint, action})
  if (response.status !== 200) {
    const error = await errorFromResponse(response, action)
    const refused = response.status === 400 || response.status === 401 || response.status === 403
    throw refused && credential
      ? new CodedError('unauthenticated', `${error.message} (the credentials were refused)`)
      : error
  }
  return parseToken(await readBounded(response, MAX_TOKEN_RESPONSE), action)
}

/** GET with Basic authentication where there is a password: what every token server knows. */
function plainRequest(realm: URL, {params, scopes}: TokenRequest, credential: Credential | undefined) {
  const url = new URL(realm)
  if (params.service) url.searchParams.set('service', params.service)
  for (const scope of scopes) url.searchParams.append('scope', scope)
  if (credential?.kind !== 'password') return {method: 'GET' as const, url, headers: {}}
  url.searchParams.set('account', credential.username)
  return {method: 'GET' as const, url, headers: {authorization: basicAuthorization(credential)}}
}

/** POST with a refresh token (OAuth2, grant_type=refresh_token). */
function oauthRequest(url: URL, {params, scopes}: TokenRequest, refreshToken: string) {
  const form = new URLSearchParams({
    grant_type: 'refresh_token',
    client_id: CLIENT_ID,
    refresh_token: refreshToken,
    scope: scopes.join(' '),
  })
  if (params.service) form.set('service', params.service)
  return {
    method: 'POST' as const,
    url,
    headers: {'content-type': 'application/x-www-form-urlencoded'},
    body: Buffer.from(form.toString()),
  }
}

/** The realm is the registry's word: it must be a URL, and must not carry credentials over an open wire. */
function parseRealm({endpoint, params, credential}: TokenRequest): URL {
  const realm = URL.parse(params.realm ?? '', endpoint.base.href)
  if (!realm || !/^https?:$/.test(realm.protocol)) {
    throw new CodedError(
      'corrupt',
      `Cannot log in to ${endpoint.host}: its token realm ${JSON.stringify(params.realm)} is no http(s) URL`,
    )
  }
  const open = realm.protocol === 'http:' && endpoint.base.protocol === 'https:'
  if (credential && open && !isLoopbackHost(realm.hostname)) {
    throw new CodedError(
      'unauthenticated',
      `Cannot log in to ${endpoint.host}: its token server ${realm.host} would get the credentials without encryption`,
    )
  }
  realm.username = ''
  realm.password = ''
  return realm
}

function parseToken(bytes: Uint8Array | undefined, action: string): Token {
  const malformed = (problem: string, cause?: unknown) =>
    new CodedError('corrupt', `Cannot ${action}: ${problem}`, {cause})
  if (!bytes) throw malformed(`the response exceeds ${MAX_TOKEN_RESPONSE} bytes`)
  let value: unknown
  try {
    value = JSON.parse(Buffer.from(bytes).toString('utf8'))
  } catch (cause) {
    // The cause would quote the body, which may hold a token.
    throw malformed(`the response is not JSON (${(cause as Error).name})`)
  }
  if (!isRecord(value)) throw malformed('the response is not a JSON object')
  const token = value.token || value.access_token
  if (typeof token !== 'string' || !/^[\x21-\x7e]+$/.test(token)) {
    throw malformed('the response holds no usable token')
  }
  const lifetime = typeof value.expires_in === 'number' && value.expires_in > 0 ? value.expires_in : undefined
  // Counted from the response's arrival: `issued_at` would compare two machines' clocks.
  const lifetimeMs = (lifetime ?? DEFAULT_LIFETIME_S) * 1000
  return {value: token, expiresAtMs: Date.now() + lifetimeMs - Math.min(EXPIRY_MARGIN_MS, lifetimeMs / 2)}
}
