// Credentials that Podman and CRI-O have for the images that they pull, as they tell them to a layer store.

import {LRUCache} from 'lru-cache'
import {CodedError} from '../errors/coded-error.ts'
import {isRecord} from '../oci/descriptor.ts'
import {parseReference} from '../oci/reference.ts'
import type {Credential, Keychain} from '../registry/keychain.ts'

/** In memory only. */
export interface ToldCredentials extends Keychain {
  /** Takes what `parseTold` reads. Throws `invalid-argument`. */
  tell(json: Uint8Array): void
  /** All that is known, as `tell` takes it. */
  encode(): Uint8Array
}

/** Repositories whose credentials are remembered; those not asked for longest go first. */
const MAX_REPOSITORIES = 10_000
/** A message is about the image that is being pulled, or a few. Bytes. */
export const MAX_TOLD = 1 << 20

export function createToldCredentials(): ToldCredentials {
  const known = new LRUCache<string, Credential>({max: MAX_REPOSITORIES})
  return {
    tell: json => {
      for (const [repository, credential] of parseTold(json)) known.set(repository, credential)
    },
    encode: () =>
      Buffer.from(
        JSON.stringify(Object.fromEntries([...known].map(([key, value]) => [key, fieldsOf(value)]))),
      ),
    find: async (host, path) => known.get(`${host}/${path}`),
  }
}

/**
 * `{"<reference>": {"username", "password", "identityToken"}}`, empty fields left out: an image without any is read by
 * everybody, or by what another keychain has. No error quotes the text, which holds passwords.
 */
function parseTold(json: Uint8Array): Map<string, Credential> {
  const told = new Map<string, Credential>()
  for (const [text, fields] of Object.entries(parseObject(json))) {
    const {domain, path} = parseReference(text.replace(/^docker:\/\//, ''))
    const credential = isRecord(fields) ? credentialOf(fields) : undefined
    if (credential) told.set(`${domain}/${path}`, credential)
  }
  return told
}

function parseObject(json: Uint8Array): Record<string, unknown> {
  if (json.length > MAX_TOLD) throw unusable(`they exceed ${MAX_TOLD} bytes`)
  let value: unknown
  try {
    value = JSON.parse(Buffer.from(json).toString())
  } catch {
    throw unusable('they are not JSON')
  }
  if (!isRecord(value)) throw unusable('they are not a JSON object')
  return value
}

function credentialOf({username, password, identityToken}: Record<string, unknown>): Credential | undefined {
  if (typeof identityToken === 'string' && identityToken) return {kind: 'identity', token: identityToken}
  if (typeof username === 'string' && username && typeof password === 'string') {
    return {kind: 'password', username, password}
  }
  return undefined
}

function fieldsOf(credential: Credential): Record<string, string> {
  switch (credential.kind) {
    case 'password':
      return {username: credential.username, password: credential.password}
    case 'identity':
    case 'bearer':
      return {identityToken: credential.token}
  }
}

function unusable(problem: string): CodedError {
  return new CodedError('invalid-argument', `Cannot use the credentials for a layer store: ${problem}`)
}
