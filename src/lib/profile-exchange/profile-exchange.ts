// Profiles beside the images that they are of, in a registry: as artifacts that refer to the images' manifests.

import {digestOf} from '../blob/sha256.ts'
import {CodedError} from '../errors/coded-error.ts'
import {isAttestation, type ManifestNode, readWholeBlob} from '../image/image-tree.ts'
import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import {MAX_MANIFEST_SIZE} from '../oci/manifest.ts'
import {OCI_EMPTY} from '../oci/media-type.ts'
import {
  EMPTY_CONFIG,
  encodeProfileArtifact,
  PROFILE_ARTIFACT,
  PROFILE_LAYER,
  profileLayerOf,
} from '../record/profile-artifact.ts'
import {encodeProfile, mergeProfiles, parseProfile} from '../record/profile-file.ts'
import {MAX_RECORD_SIZE, type RecordEntry} from '../record/record-file.ts'
import {listReferrers, putReferrer} from '../registry/referrers.ts'
import type {Repository} from '../registry/repository.ts'

/** Profiles of one manifest; more are not merged. */
const MAX_PROFILES = 256

/** A profile that is in a registry now. */
export interface StoredProfile {
  readonly artifact: Digest
  /** The manifest of the image. */
  readonly subject: Digest
  readonly files: number
}

/**
 * Stores what a profile says of each of the manifests: of those that it names, or of all if it names none at all. Throws
 * `invalid-argument` for the profile of another image.
 */
export async function pushProfile(
  repository: Repository,
  manifests: readonly ManifestNode[],
  profile: readonly RecordEntry[],
  call: CallOptions = {},
): Promise<readonly StoredProfile[]> {
  const images = manifests.map(({descriptor}) => descriptor).filter(descriptor => !isAttestation(descriptor))
  const named = new Set(profile.flatMap(({manifestDigest}) => manifestDigest ?? []))
  const subjects = named.size === 0 ? images : images.filter(({digest}) => named.has(digest))
  if (subjects.length === 0) {
    const own = images.map(({digest}) => digest).join(', ')
    throw new CodedError(
      'invalid-argument',
      `Cannot push the profile: it is of ${[...named].slice(0, 3).join(', ')}, not of this image (${own})`,
    )
  }
  const stored: StoredProfile[] = []
  for (const subject of subjects) {
    const entries = profile.filter(entry => [undefined, subject.digest].includes(entry.manifestDigest))
    stored.push(await storeProfile(repository, subject, entries, call))
  }
  return stored
}

async function storeProfile(
  repository: Repository,
  subject: Descriptor,
  entries: readonly RecordEntry[],
  call: CallOptions,
): Promise<StoredProfile> {
  const {content} = repository
  const config = await storeBlob(content, OCI_EMPTY, EMPTY_CONFIG, call)
  const profile = await storeBlob(content, PROFILE_LAYER, encodeProfile(entries), call)
  const manifest = encodeProfileArtifact(subject, {config: config.digest, profile})
  const referrer = {subject: subject.digest, manifest, artifactType: PROFILE_ARTIFACT}
  const {digest} = await putReferrer(repository, referrer, {...call, digest: digestOf(manifest)})
  return {artifact: digest, subject: subject.digest, files: entries.length}
}

async function storeBlob(
  content: ContentStore,
  mediaType: string,
  bytes: Uint8Array,
  call: CallOptions,
): Promise<Descriptor> {
  const descriptor = {mediaType, digest: digestOf(bytes), size: bytes.length}
  await using writer = await content.write(descriptor, call)
  await writer.write(bytes)
  await writer.commit(descriptor, call)
  return descriptor
}

/**
 * All profiles of the manifests, as one. Throws `not-found` when there is none, `corrupt` for one that is no profile or of another
 * image, `unsupported` for too many.
 */
export async function pullProfiles(
  repository: Repository,
  manifests: readonly ManifestNode[],
  call: CallOptions = {},
): Promise<readonly RecordEntry[]> {
  const profiles: (readonly RecordEntry[])[] = []
  const images = manifests.map(({descriptor}) => descriptor).filter(descriptor => !isAttestation(descriptor))
  for (const {digest} of images) {
    const found = await listReferrers(repository, digest, PROFILE_ARTIFACT, call)
    if (found.length > MAX_PROFILES) {
      throw new CodedError(
        'unsupported',
        `Cannot merge ${found.length} profiles of ${digest} in ${repository.name}: the limit is ${MAX_PROFILES}`,
      )
    }
    for (const artifact of found) profiles.push(await readArtifact(repository, digest, artifact, call))
  }
  if (profiles.length > 0) return mergeProfiles(profiles)
  throw new CodedError(
    'not-found',
    `Cannot find a profile of ${images.map(({digest}) => digest).join(', ')} in ${repository.name}; store one with "ctr-remote profile push"`,
  )
}

async function readArtifact(
  {content, name}: Repository,
  subject: Digest,
  artifact: Descriptor,
  call: CallOptions,
): Promise<readonly RecordEntry[]> {
  const where = `the profile ${artifact.digest} in ${name}`
  const manifest = await readWholeBlob(content, artifact, MAX_MANIFEST_SIZE, call)
  const layer = profileLayerOf(manifest, subject, where)
  const entries = parseProfile(await readWholeBlob(content, layer, MAX_RECORD_SIZE, call), where)
  const foreign = entries.find(
    ({manifestDigest}) => manifestDigest !== undefined && manifestDigest !== subject,
  )
  if (!foreign) return entries
  throw new CodedError(
    'corrupt',
    `Cannot use ${where}: it names files of another image, ${foreign.manifestDigest}`,
  )
}
