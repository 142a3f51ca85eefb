// Profiles as OCI artifacts: a manifest whose subject is the image's manifest, and whose only layer is the profile file.

import {CodedError} from '../errors/coded-error.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import {encodeJson, parseImageDocument, subjectOf} from '../oci/manifest.ts'
import {OCI_EMPTY, OCI_MANIFEST} from '../oci/media-type.ts'
import {MAX_RECORD_SIZE} from './record-file.ts'

export const PROFILE_ARTIFACT = 'application/vnd.ctr-remote.profile.v1'
/** Objects of JSON, one a line. */
export const PROFILE_LAYER = 'application/vnd.ctr-remote.profile.v1+jsonl'

/** The config of artifacts that have none (image-spec manifest.md, "Guidance for an Empty Descriptor"). */
export const EMPTY_CONFIG = new TextEncoder().encode('{}')

/** The manifest of a profile's artifact; the same of the same profile. */
export function encodeProfileArtifact(
  subject: Descriptor,
  {
    config,
    profile,
  }: {readonly config: Digest; readonly profile: {readonly digest: Digest; readonly size: number}},
): Uint8Array {
  const {mediaType, digest, size} = subject
  return encodeJson({
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    artifactType: PROFILE_ARTIFACT,
    config: {mediaType: OCI_EMPTY, digest: config, size: EMPTY_CONFIG.length},
    layers: [{mediaType: PROFILE_LAYER, digest: profile.digest, size: profile.size}],
    subject: {mediaType, digest, size},
  })
}

/** Where the profile of an artifact is. Throws `corrupt` for one that is no profile of `subject`, or too large a one. */
export function profileLayerOf(bytes: Uint8Array, subject: Digest, where: string): Descriptor {
  const document = parseImageDocument(bytes, OCI_MANIFEST, where)
  const refuse = (problem: string) => new CodedError('corrupt', `Cannot use ${where}: ${problem}`)
  if (document.kind !== 'manifest' || document.manifest.artifactType !== PROFILE_ARTIFACT) {
    throw refuse(`it is no artifact of type ${PROFILE_ARTIFACT}`)
  }
  const own = subjectOf(document)?.digest
  if (own !== subject) throw refuse(`it is a profile of ${own ?? 'nothing'}, not of ${subject}`)
  const [layer, ...others] = document.manifest.layers
  if (!layer || others.length > 0 || layer.mediaType !== PROFILE_LAYER) throw refuse('it has not one profile')
  if (layer.size > MAX_RECORD_SIZE) {
    throw refuse(`its ${layer.size} bytes exceed the limit of ${MAX_RECORD_SIZE}`)
  }
  return layer
}
