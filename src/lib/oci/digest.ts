// Content digests, `sha256:<64 hex digits>` (OCI image-spec, descriptor.md#digests).

import {CodedError} from '../errors/coded-error.ts'

declare const digestBrand: unique symbol

/** A well-formed content digest. Only `parseDigest` and the hashing functions make one. */
export type Digest = string & {readonly [digestBrand]: true}

const DIGEST_PATTERN = /^sha256:[0-9a-f]{64}$/

/** True when `text` is a digest of an algorithm that we can verify (sha256). */
export function isDigest(text: unknown): text is Digest {
  return typeof text === 'string' && DIGEST_PATTERN.test(text)
}

/** True for a digest of another algorithm that the image-spec registers. */
export function isForeignDigest(text: unknown): boolean {
  return typeof text === 'string' && /^(sha384|sha512|blake3):[0-9a-f]{64,128}$/.test(text)
}

/** `text` as a digest; throws `invalid-argument` when it is not a lower-case sha256 digest. */
export function parseDigest(text: string): Digest {
  if (!isDigest(text)) {
    throw new CodedError(
      'invalid-argument',
      `Cannot use ${JSON.stringify(text)} as a digest: expected "sha256:" and 64 lower-case hex digits`,
    )
  }
  return text
}

/** The digest whose hash bytes are `hash` (32 bytes). */
export function digestFromHash(hash: Uint8Array): Digest {
  let hex = ''
  for (const byte of hash) hex += byte.toString(16).padStart(2, '0')
  return parseDigest(`sha256:${hex}`)
}

/** The 64 hex digits of a digest: its file name in an OCI layout. */
export function hexOf(digest: Digest): string {
  return digest.slice('sha256:'.length)
}
