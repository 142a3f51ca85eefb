// Referrers: what manifests of a repository are about others of it (distribution-spec, "Listing Referrers"). They are kept as the
// index that clients keep at registries that do not, under its tag: what they have written there is listed, too.

import {digestOf} from '../blob/sha256.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import {
  encodeJson,
  type ImageDocument,
  MAX_INDEX_ENTRIES,
  MAX_MANIFEST_SIZE,
  parseImageDocument,
  referrersTag,
} from '../oci/manifest.ts'
import {OCI_INDEX} from '../oci/media-type.ts'
import {type Exchange, type Registry, reply} from './exchange.ts'
import {findImage, pushedName} from './image-names.ts'
import {readManifest, writeManifest} from './manifest-blobs.ts'
import {Problem} from './problem.ts'

/** GET, of one type if the query names one. A manifest that nothing refers to, or that is not here, has an empty list. */
export async function sendReferrers(
  registry: Registry,
  exchange: Exchange,
  repository: string,
  subject: Digest,
): Promise<void> {
  const all = await readReferrers(registry, exchange, repository, subject)
  const type = exchange.query.get('artifactType')
  const manifests = type ? all.filter(({artifactType}) => artifactType === type) : all
  const filtered = type ? {'oci-filters-applied': 'artifactType'} : {}
  reply(exchange, 200, {'content-type': OCI_INDEX, ...filtered}, encodeIndex(manifests))
}

/** A manifest that has been pushed, and what it is about. */
export interface PushedReferrer {
  readonly subject: Digest
  readonly document: ImageDocument
  readonly descriptor: Descriptor
}

export async function addReferrer(
  registry: Registry,
  exchange: Exchange,
  repository: string,
  {subject, document, descriptor}: PushedReferrer,
): Promise<void> {
  const own = document.kind === 'index' ? document.index : document.manifest
  const configType = document.kind === 'manifest' ? document.manifest.config.mediaType : undefined
  const {annotations} = own
  const artifactType = ('artifactType' in own ? own.artifactType : undefined) || configType
  const listed = {
    ...descriptor,
    ...(artifactType ? {artifactType} : {}),
    ...(annotations ? {annotations} : {}),
  }
  await changeReferrers(registry, exchange, repository, {
    subject,
    change: others => [...others.filter(({digest}) => digest !== descriptor.digest), listed],
  })
}

export async function removeReferrer(
  registry: Registry,
  exchange: Exchange,
  repository: string,
  {subject, digest}: {readonly subject: Digest; readonly digest: Digest},
): Promise<void> {
  await changeReferrers(registry, exchange, repository, {
    subject,
    change: all => all.filter(referrer => referrer.digest !== digest),
  })
}

interface Change {
  readonly subject: Digest
  readonly change: (referrers: readonly Descriptor[]) => readonly Descriptor[]
}

/** The last change of each registry: each reads what the one before has written. */
const changes = new WeakMap<Registry, Promise<void>>()

async function changeReferrers(
  registry: Registry,
  exchange: Exchange,
  repository: string,
  {subject, change}: Change,
): Promise<void> {
  const before = changes.get(registry) ?? Promise.resolve()
  const own = before.then(async () => {
    const bytes = encodeIndex(change(await readReferrers(registry, exchange, repository, subject)))
    if (bytes.length > MAX_MANIFEST_SIZE) {
      throw new Problem('SIZE_INVALID', `The referrers of ${subject} exceed ${MAX_MANIFEST_SIZE} bytes`)
    }
    const descriptor = {mediaType: OCI_INDEX, digest: digestOf(bytes), size: bytes.length}
    await writeManifest(registry, exchange, descriptor, bytes)
    const name = pushedName(repository, {tag: referrersTag(subject)}, registry.naming)
    await registry.store.images.put(name, descriptor)
  })
  changes.set(
    registry,
    own.catch(() => {}),
  )
  await own
}

async function readReferrers(
  registry: Registry,
  exchange: Exchange,
  repository: string,
  subject: Digest,
): Promise<readonly Descriptor[]> {
  const tag = {tag: referrersTag(subject)}
  const image = await findImage(registry.store, repository, tag, registry.naming, exchange.hints)
  const found = image && (await readManifest(registry, exchange, image.target.digest, image.target.mediaType))
  if (!found) return []
  const document = parseImageDocument(found.bytes, found.descriptor.mediaType, 'the referrers')
  return document.kind === 'index' ? document.index.manifests : []
}

function encodeIndex(manifests: readonly Descriptor[]): Uint8Array {
  if (manifests.length > MAX_INDEX_ENTRIES) {
    throw new Problem('SIZE_INVALID', `A manifest has ${MAX_INDEX_ENTRIES} referrers at most`)
  }
  return encodeJson({schemaVersion: 2, mediaType: OCI_INDEX, manifests})
}
