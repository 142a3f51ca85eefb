// Manifests: by tag and digest (distribution-spec, "Pulling manifests", "Pushing manifests", "Deleting").

import {digestOf} from '../blob/sha256.ts'
import {hasCode} from '../errors/coded-error.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import {type ImageDocument, MAX_MANIFEST_SIZE, parseImageDocument, subjectOf} from '../oci/manifest.ts'
import {isForeignLayer, isIndexMediaType, isManifestMediaType} from '../oci/media-type.ts'
import {type Exchange, type Registry, readBody, reply} from './exchange.ts'
import {findImage, listRepository, pushedName} from './image-names.ts'
import {type FoundManifest, readManifest, writeManifest} from './manifest-blobs.ts'
import {Problem} from './problem.ts'
import {addReferrer, removeReferrer} from './referrers.ts'
import type {ManifestReference} from './route.ts'

/** GET and HEAD. Whether the client accepts the media type is its own affair, as with most registries. */
export async function sendManifest(
  registry: Registry,
  exchange: Exchange,
  repository: string,
  reference: ManifestReference,
): Promise<void> {
  const found = await findManifest(registry, exchange, repository, reference)
  if (!found) throw unknownManifest(repository, reference)
  replyManifest(exchange, found)
}

/** Answers with a manifest; one that the client says to have is not sent again. */
export function replyManifest(exchange: Exchange, {descriptor, bytes}: FoundManifest): void {
  const {digest, mediaType} = descriptor
  const headers = {'docker-content-digest': digest, etag: `"${digest}"`}
  if (exchange.request.headers['if-none-match'] === headers.etag) reply(exchange, 304, headers)
  else reply(exchange, 200, {...headers, 'content-type': mediaType}, bytes)
}

async function findManifest(
  registry: Registry,
  exchange: Exchange,
  repository: string,
  reference: ManifestReference,
): Promise<FoundManifest | undefined> {
  const {store, naming} = registry
  if ('digest' in reference) return readManifest(registry, exchange, reference.digest, undefined)
  const image = await findImage(store, repository, reference, naming, exchange.hints)
  return image && readManifest(registry, exchange, image.target.digest, image.target.mediaType)
}

/** PUT. Everything it refers to must be here, so that what can be pulled can be pulled whole. */
export async function putManifest(
  registry: Registry,
  exchange: Exchange,
  repository: string,
  reference: ManifestReference,
): Promise<void> {
  await registry.lease.extend()
  const bytes = await readBody(exchange, MAX_MANIFEST_SIZE)
  const digest = digestOf(bytes)
  if ('digest' in reference && reference.digest !== digest) {
    throw new Problem('DIGEST_INVALID', `The manifest's digest is ${digest}`)
  }
  const {document, mediaType} = parsePushed(bytes, exchange.request.headers['content-type'])
  const children = childrenOf(document)
  await checkChildren(registry, exchange, children)
  const descriptor = {mediaType, digest, size: bytes.length}
  await writeManifest(registry, exchange, descriptor, bytes)
  await registry.store.images.put(pushedName(repository, reference, registry.naming), descriptor)
  // From now on the new image keeps its parts, which were pushed by digest and kept as images of their own.
  const parts = document.kind === 'index' ? children : []
  for (const part of [...parts, ...('tag' in reference ? [descriptor] : [])]) {
    await removeQuietly(registry, pushedName(repository, {digest: part.digest}, registry.naming))
  }
  const subject = subjectIn(document)
  if (subject) await addReferrer(registry, exchange, repository, {subject, document, descriptor})
  reply(exchange, 201, {
    location: `/v2/${repository}/manifests/${digest}`,
    'docker-content-digest': digest,
    // Without it clients would keep referrers by tag themselves.
    ...(subject ? {'oci-subject': subject} : {}),
  })
}

function parsePushed(
  bytes: Uint8Array,
  contentType: string | undefined,
): {document: ImageDocument; mediaType: string} {
  const type = contentType?.split(';')[0]?.trim() ?? ''
  const isKnown = isManifestMediaType(type) || isIndexMediaType(type)
  if (!isKnown && type !== '' && type !== 'application/json') {
    throw new Problem('MANIFEST_INVALID', 'The media type is none of an image manifest or index')
  }
  try {
    const document = parseImageDocument(bytes, isKnown ? type : '', 'the manifest')
    const {mediaType} = document.kind === 'index' ? document.index : document.manifest
    return {document, mediaType}
  } catch (error) {
    throw new Problem(
      'MANIFEST_INVALID',
      error instanceof Error ? error.message : 'The manifest is malformed',
    )
  }
}

function subjectIn(document: ImageDocument): Digest | undefined {
  try {
    return subjectOf(document)?.digest
  } catch (error) {
    throw new Problem('MANIFEST_INVALID', error instanceof Error ? error.message : 'The subject is malformed')
  }
}

function childrenOf(document: ImageDocument): readonly Descriptor[] {
  if (document.kind === 'index') return document.index.manifests
  const {config, layers} = document.manifest
  return [config, ...layers.filter(layer => !isForeignLayer(layer.mediaType))]
}

async function checkChildren(
  registry: Registry,
  exchange: Exchange,
  children: readonly Descriptor[],
): Promise<void> {
  for (const child of children) {
    if (!(await registry.store.content.info(child, exchange))) {
      throw new Problem('MANIFEST_BLOB_UNKNOWN', `The manifest refers to ${child.digest}, which is not here`)
    }
  }
}

/** DELETE: a tag, or by digest all tags of the repository that point to it. The content goes with garbage collection. */
export async function deleteManifest(
  registry: Registry,
  exchange: Exchange,
  repository: string,
  reference: ManifestReference,
): Promise<void> {
  const {store, naming} = registry
  const {hints} = exchange
  const images =
    'tag' in reference
      ? [await findImage(store, repository, reference, naming, hints)]
      : (await listRepository(store, repository, naming, hints))
          .map(({image}) => image)
          .filter(image => image.target.digest === reference.digest)
  const names = images.flatMap(image => (image ? [image.name] : []))
  if (names.length === 0) throw unknownManifest(repository, reference)
  if ('digest' in reference) {
    const found = await readManifest(registry, exchange, reference.digest, undefined)
    const subject = found && subjectIn(parseImageDocument(found.bytes, found.descriptor.mediaType, 'it'))
    if (subject) await removeReferrer(registry, exchange, repository, {subject, digest: reference.digest})
  }
  for (const name of names) await removeQuietly(registry, name)
  reply(exchange, 202, {})
}

/** Another client may have been faster. */
async function removeQuietly({store}: Registry, name: string): Promise<void> {
  try {
    await store.images.remove(name)
  } catch (error) {
    if (!hasCode(error, 'not-found')) throw error
  }
}

function unknownManifest(repository: string, reference: ManifestReference): Problem {
  const what = 'tag' in reference ? `tag ${JSON.stringify(reference.tag)}` : reference.digest
  return new Problem('MANIFEST_UNKNOWN', `There is no manifest ${what} in ${JSON.stringify(repository)}`)
}
