// Who asks. A client shows its credentials for the upstream, in words that every client knows: it is challenged for a token,
// and gets one from us, in which its credentials are sealed. We keep none, and use a client's for its own requests only.

import {createCipheriv, createDecipheriv, createHmac, randomBytes} from 'node:crypto'
import {isRecord} from '../oci/descriptor.ts'
import type {Credential} from '../registry/keychain.ts'
import {Problem} from '../registry-server/problem.ts'

/** A client with its credentials, if it has any. */
export interface Client {
  /** Tells clients apart, and nothing about their credentials. */
  readonly key: string
  readonly credential: Credential | undefined
}

/** How long a token is good, seconds. Clients ask for another, with the same credentials, when they must. */
export const TOKEN_LIFETIME_S = 600

/** Longest Authorization header that is looked at; identity tokens of cloud registries take some KiB. */
const MAX_HEADER_LENGTH = 32 * 1024
const CIPHER = 'aes-256-gcm'
const IV_LENGTH = 12
const TAG_LENGTH = 16

/** Makes and reads tokens, with a secret that lives as long as the process: a restart has clients ask for new ones. */
export class ClientTokens {
  readonly #secret = randomBytes(32)
  readonly #now: () => number

  constructor(now: () => number = Date.now) {
    this.#now = now
  }

  clientOf(credential: Credential | undefined): Client {
    const key = createHmac('sha256', this.#secret)
      .update(JSON.stringify(credential ?? null))
      .digest('hex')
    return {key, credential}
  }

  /** A token for whoever presented `credential`. */
  seal(credential: Credential | undefined): string {
    const expiresAt = this.#now() + TOKEN_LIFETIME_S * 1000
    const iv = randomBytes(IV_LENGTH)
    const cipher = createCipheriv(CIPHER, this.#secret, iv)
    const sealed = [
      cipher.update(JSON.stringify({credential: credential ?? null, expiresAt})),
      cipher.final(),
    ]
    return Buffer.concat([iv, cipher.getAuthTag(), ...sealed]).toString('base64url')
  }

  /** The client of a request, by its Authorization header. Throws `UNAUTHORIZED` for a token that is not good any more. */
  authenticate(header: string | undefined): Client {
    if (header === undefined) return this.clientOf(undefined)
    if (header.length > MAX_HEADER_LENGTH) throw new Problem('UNAUTHORIZED', 'The credentials are too long')
    const token = /^Bearer +(\S+)$/i.exec(header)?.[1]
    if (token !== undefined) return this.clientOf(this.#open(token))
    return this.clientOf(parseBasic(header))
  }

  #open(token: string): Credential | undefined {
    const bytes = Buffer.from(token, 'base64url')
    try {
      const opened = createDecipheriv(CIPHER, this.#secret, bytes.subarray(0, IV_LENGTH), {
        authTagLength: TAG_LENGTH,
      }).setAuthTag(bytes.subarray(IV_LENGTH, IV_LENGTH + TAG_LENGTH))
      const text = Buffer.concat([opened.update(bytes.subarray(IV_LENGTH + TAG_LENGTH)), opened.final()])
      const value: unknown = JSON.parse(text.toString())
      if (isRecord(value) && typeof value.expiresAt === 'number' && value.expiresAt > this.#now()) {
        // What was sealed here is what it was.
        return (value.credential as Credential | null) ?? undefined
      }
    } catch {
      // Another process's, or nobody's.
    }
    throw new Problem('UNAUTHORIZED', 'The token is not good, or not any more; ask for another')
  }
}

/** The credentials of a Basic header (RFC 7617). Nothing at all, as some clients send it, is nobody. */
export function parseBasic(header: string): Credential | undefined {
  const encoded = /^Basic +([A-Za-z0-9+/=_-]*)$/i.exec(header)?.[1]
  const text = encoded === undefined ? '' : Buffer.from(encoded, 'base64').toString('utf8')
  const colon = text.indexOf(':')
  if (colon < 0) throw new Problem('UNAUTHORIZED', 'The Authorization header is malformed')
  const username = text.slice(0, colon)
  const password = text.slice(colon + 1)
  if (username === '' && password === '') return undefined
  return {kind: 'password', username, password}
}
