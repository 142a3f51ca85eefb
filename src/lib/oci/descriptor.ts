// Content descriptors (OCI image-spec descriptor.md).

import {CodedError} from '../errors/coded-error.ts'
import {type Digest, isDigest, isForeignDigest} from './digest.ts'
import type {Platform} from './platform.ts'

/** A typed pointer to content: `size` in bytes. Unknown JSON fields are kept when a descriptor is rewritten. */
export interface Descriptor {
  readonly mediaType: string
  readonly digest: Digest
  readonly size: number
  /** Other places for the same bytes. */
  readonly urls?: readonly string[]
  /** The bytes themselves, in base64. */
  readonly data?: string
  readonly annotations?: Readonly<Record<string, string>>
  readonly platform?: Platform
  readonly artifactType?: string
}

/** Checks a parsed JSON value; `where` names it in the `corrupt` error that a malformed one throws. */
export function parseDescriptor(value: unknown, where: string): Descriptor {
  if (!isRecord(value)) throw malformed(where, 'is not an object')
  const {mediaType, digest, size, annotations, platform, urls, data} = value
  if (typeof mediaType !== 'string' || mediaType.length === 0 || mediaType.length > 255) {
    throw malformed(where, 'has no valid "mediaType"')
  }
  if (isForeignDigest(digest)) {
    throw new CodedError(
      'unsupported',
      `Cannot use ${where}: its digest ${JSON.stringify(digest)} is not SHA-256, the only algorithm that is supported`,
    )
  }
  if (!isDigest(digest)) throw malformed(where, `has no valid sha256 "digest" (${JSON.stringify(digest)})`)
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0)
    throw malformed(where, 'has no valid "size"')
  if (annotations !== undefined && annotations !== null && !isStringRecord(annotations)) {
    throw malformed(where, 'has "annotations" that are not strings')
  }
  if (platform !== undefined && platform !== null && !isPlatform(platform))
    throw malformed(where, 'has no valid "platform"')
  if (
    urls !== undefined &&
    urls !== null &&
    !(Array.isArray(urls) && urls.every(url => typeof url === 'string'))
  ) {
    throw malformed(where, 'has no valid "urls"')
  }
  if (data !== undefined && data !== null && typeof data !== 'string')
    throw malformed(where, 'has no valid "data"')
  const kept: Record<string, unknown> = {...value}
  for (const key of ['annotations', 'platform', 'urls', 'data']) if (kept[key] === null) delete kept[key]
  return kept as unknown as Descriptor
}

/**
 * The descriptor of new content in the place of `descriptor`'s. What is said of the place stays; where else the old bytes are
 * (`urls`), and the old bytes themselves (`data`), go.
 */
export function withContent(
  descriptor: Descriptor,
  content: Pick<Descriptor, 'mediaType' | 'digest' | 'size'>,
): Descriptor {
  const {mediaType, digest, size} = content
  if (digest === descriptor.digest) return {...descriptor, mediaType}
  const {urls: _, data: __, ...rest} = descriptor
  return {...rest, mediaType, digest, size}
}

/** `descriptor` with annotations added; a value of undefined removes the key. */
export function withAnnotations(
  descriptor: Descriptor,
  changes: Readonly<Record<string, string | undefined>>,
): Descriptor {
  const merged = Object.fromEntries(
    Object.entries({...descriptor.annotations, ...changes}).filter(
      (pair): pair is [string, string] => pair[1] !== undefined,
    ),
  )
  const {annotations: _, ...rest} = descriptor
  return Object.keys(merged).length > 0 ? {...rest, annotations: merged} : rest
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export function isStringRecord(value: unknown): value is Record<string, string> {
  return isRecord(value) && Object.values(value).every(item => typeof item === 'string')
}

function isPlatform(value: unknown): value is Platform {
  return isRecord(value) && typeof value.os === 'string' && typeof value.architecture === 'string'
}

function malformed(where: string, problem: string): CodedError {
  return new CodedError('corrupt', `Cannot use ${where}: it ${problem}`)
}
