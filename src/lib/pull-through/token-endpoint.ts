// Where clients come for tokens (distribution token spec, and its OAuth2 form), and the challenge that sends them there.

import type {Credential} from '../registry/keychain.ts'
import {type Exchange, readBody, reply} from '../registry-server/exchange.ts'
import {Problem} from '../registry-server/problem.ts'
import {type ClientTokens, parseBasic, TOKEN_LIFETIME_S} from './client.ts'

/** The path of the token server. */
export const TOKEN_PATH = '/token'
/** A form with a password or a refresh token; those of cloud registries take some KiB. */
const MAX_FORM_SIZE = 64 * 1024

/** How clients reach us, where that is not what they and the connection say: `https://mirror.example.com`. */
export type PublicUrl = string | undefined

/** Gives a token for the credentials that are shown, or for none. Whether the upstream knows them shows when they are used. */
export async function sendToken(tokens: ClientTokens, exchange: Exchange): Promise<void> {
  const token = tokens.seal(await shownCredential(exchange))
  const body = {
    token,
    access_token: token,
    expires_in: TOKEN_LIFETIME_S,
    issued_at: new Date().toISOString(),
  }
  reply(
    exchange,
    200,
    {'content-type': 'application/json', 'cache-control': 'no-store'},
    JSON.stringify(body),
  )
}

async function shownCredential(exchange: Exchange): Promise<Credential | undefined> {
  const {method, request} = exchange
  if (method === 'GET' || method === 'HEAD') {
    const header = request.headers.authorization
    return header === undefined ? undefined : parseBasic(header)
  }
  if (method !== 'POST')
    throw new Problem('UNSUPPORTED', `Method ${method} does not apply`, {allow: 'GET, POST'})
  const form = new URLSearchParams((await readBody(exchange, MAX_FORM_SIZE)).toString('utf8'))
  const [username, password, token] = ['username', 'password', 'refresh_token'].map(name => form.get(name))
  if (form.get('grant_type') === 'refresh_token' && token) return {kind: 'identity', token}
  if (form.get('grant_type') === 'password' && username && password) {
    return {kind: 'password', username, password}
  }
  throw new Problem('UNAUTHORIZED', 'The form holds neither a password nor a refresh token')
}

/** The header of a 401: where to get a token, and for what. */
export function challengeFor(
  {request}: Pick<Exchange, 'request'>,
  publicUrl: PublicUrl,
  {
    repository,
    error,
  }: {readonly repository?: string; readonly error?: 'invalid_token' | 'insufficient_scope'},
): Readonly<Record<string, string>> {
  const base = publicUrl ?? urlOf(request)
  const service = URL.parse(base)?.host ?? 'registry'
  const parts = [
    `realm="${base}${TOKEN_PATH}"`,
    `service="${service}"`,
    ...(repository === undefined ? [] : [`scope="repository:${repository}:pull"`]),
    ...(error === undefined ? [] : [`error="${error}"`]),
  ]
  return {'www-authenticate': `Bearer ${parts.join(',')}`}
}

/** What the client has called us by. */
function urlOf({headers, socket}: Exchange['request']): string {
  const host = /^[\w.:[\]-]{1,255}$/.test(headers.host ?? '') ? headers.host : `127.0.0.1:${socket.localPort}`
  return `${'encrypted' in socket && socket.encrypted ? 'https' : 'http'}://${host}`
}
