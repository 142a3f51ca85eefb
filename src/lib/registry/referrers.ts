// What artifacts of a repository are about a manifest (distribution-spec, "Listing Referrers"), by the registry's own list or by the
// tag under which clients keep one at registries that have none.

import {CodedError, hasCode} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import {
  encodeJson,
  MAX_INDEX_ENTRIES,
  MAX_MANIFEST_SIZE,
  parseImageDocument,
  referrersTag,
} from '../oci/manifest.ts'
import {OCI_INDEX, OCI_MANIFEST} from '../oci/media-type.ts'
import {errorFromResponse, readBounded} from './registry-error.ts'
import type {Repository} from './repository.ts'

/** Pages of a list that are followed. */
const MAX_PAGES = 64
/** Two clients that write the same tag at once lose one's entry, who then writes it again. */
const WRITE_ATTEMPTS = 3

/** The artifacts of one type that are about `subject`. Throws `corrupt` for a list that is none. */
export async function listReferrers(
  repository: Repository,
  subject: Digest,
  artifactType: string,
  call: CallOptions = {},
): Promise<readonly Descriptor[]> {
  const listed = await askForReferrers(repository, subject, artifactType, call)
  const found = listed ?? (await readTagged(repository, subject, call))
  return found.filter(descriptor => descriptor.artifactType === artifactType)
}

/** Stores a manifest whose subject is `subject`, so that it is listed; its blobs must be there. */
export async function putReferrer(
  repository: Repository,
  {
    subject,
    manifest,
    artifactType,
  }: {readonly subject: Digest; readonly manifest: Uint8Array; readonly artifactType: string},
  call: CallOptions & {readonly digest: Digest},
): Promise<Descriptor> {
  const document = {mediaType: OCI_MANIFEST, bytes: manifest}
  const descriptor = {...(await repository.putManifest(call.digest, document, call)), artifactType}
  const isIn = (list: readonly Descriptor[]) => list.some(({digest}) => digest === descriptor.digest)
  for (let attempt = 0; attempt < WRITE_ATTEMPTS; attempt++) {
    const listed = await askForReferrers(repository, subject, artifactType, call)
    if (listed && isIn(listed)) return descriptor
    const tagged = await readTagged(repository, subject, call)
    if (isIn(tagged)) return descriptor
    const manifests = [...tagged, descriptor]
    const bytes = encodeJson({schemaVersion: 2, mediaType: OCI_INDEX, manifests})
    await repository.putManifest(referrersTag(subject), {mediaType: OCI_INDEX, bytes}, call)
  }
  return descriptor
}

/** Undefined where the registry keeps no lists. */
async function askForReferrers(
  repository: Repository,
  subject: Digest,
  artifactType: string,
  call: CallOptions,
): Promise<readonly Descriptor[] | undefined> {
  const path = `referrers/${subject}`
  const found: Descriptor[] = []
  let query: Record<string, string> = {artifactType}
  for (let page = 0; page < MAX_PAGES; page++) {
    const response = await repository.ask({method: 'GET', path, query, headers: {accept: OCI_INDEX}}, call)
    if ([401, 403, 429].includes(response.status) || (response.status >= 500 && response.status !== 501)) {
      throw await errorFromResponse(response, `list what refers to ${subject} in ${repository.name}`)
    }
    const type = (response.header('content-type') ?? '').split(';')[0]!.trim()
    if (response.status !== 200 || type !== OCI_INDEX) {
      await response.discard()
      return undefined
    }
    const bytes = await readBounded(response, MAX_MANIFEST_SIZE)
    if (!bytes) throw tooMany(repository, subject)
    found.push(...referrersIn(bytes, `the referrers of ${subject} in ${repository.name}`))
    if (found.length > MAX_INDEX_ENTRIES) throw tooMany(repository, subject)
    const next = /<([^>]*)>\s*;\s*rel="?next"?/.exec(response.header('link') ?? '')?.[1]
    const url = next === undefined ? null : URL.parse(next, response.url.href)
    if (!url) return found
    query = Object.fromEntries(url.searchParams)
  }
  throw tooMany(repository, subject)
}

async function readTagged(
  repository: Repository,
  subject: Digest,
  call: CallOptions,
): Promise<readonly Descriptor[]> {
  const tag = referrersTag(subject)
  try {
    const descriptor = await repository.resolve(tag, call)
    await using blob = await repository.content.open(descriptor, call)
    const parts: Uint8Array[] = []
    for await (const part of blob.stream(call)) parts.push(part)
    return referrersIn(Buffer.concat(parts), `the tag ${tag} of ${repository.name}`)
  } catch (error) {
    if (hasCode(error, 'not-found')) return []
    throw error
  }
}

function referrersIn(bytes: Uint8Array, where: string): readonly Descriptor[] {
  const document = parseImageDocument(bytes, OCI_INDEX, where)
  return document.kind === 'index' ? document.index.manifests : []
}

function tooMany({name}: Repository, subject: Digest): CodedError {
  return new CodedError('unsupported', `Cannot list what refers to ${subject} in ${name}: it is too much`)
}
