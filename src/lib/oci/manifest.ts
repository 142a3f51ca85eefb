// Image manifests, indexes and configs (OCI image-spec; Docker schema 2): bounded parsing that keeps unknown fields.

import {CodedError} from '../errors/coded-error.ts'
import {type Descriptor, isRecord, parseDescriptor} from './descriptor.ts'
import {type Digest, isDigest} from './digest.ts'
import {
  DOCKER_LIST,
  DOCKER_MANIFEST,
  isIndexMediaType,
  isManifestMediaType,
  OCI_INDEX,
  OCI_MANIFEST,
} from './media-type.ts'
import {normalizePlatform, type Platform} from './platform.ts'

/** Largest manifest or index accepted, bytes: the distribution spec asks registries to take 4 MiB; containerd reads 8. */
export const MAX_MANIFEST_SIZE = 8 * 1024 * 1024
/** Largest image config accepted, bytes. Configs hold history and labels; real ones stay under 100 KiB. */
export const MAX_CONFIG_SIZE = 8 * 1024 * 1024
/** Most layers in one image. Overlayfs takes 500, Docker 127; more is an attack on us. */
export const MAX_LAYERS = 1024
/** Most manifests in one index. */
export const MAX_INDEX_ENTRIES = 4096

/** An image manifest of either family. */
export interface ImageManifest {
  readonly schemaVersion: 2
  readonly mediaType: string
  readonly config: Descriptor
  readonly layers: readonly Descriptor[]
  readonly artifactType?: string
  readonly annotations?: Readonly<Record<string, string>>
  /** As it is written: see `subjectOf`. */
  readonly subject?: unknown
}

/** An image index (OCI) or manifest list (Docker). */
export interface ImageIndex {
  readonly schemaVersion: 2
  readonly mediaType: string
  readonly manifests: readonly Descriptor[]
  readonly annotations?: Readonly<Record<string, string>>
  /** As it is written: see `subjectOf`. */
  readonly subject?: unknown
}

export interface HistoryEntry {
  readonly created?: string
  readonly created_by?: string
  readonly comment?: string
  readonly empty_layer?: boolean
}

/** The part of an image config that describes how to run it (image-spec config.md, "config"). */
export interface RunConfig {
  readonly User?: string
  readonly Env?: readonly string[]
  readonly Entrypoint?: readonly string[]
  readonly Cmd?: readonly string[]
  readonly WorkingDir?: string
  readonly StopSignal?: string
  readonly Volumes?: Readonly<Record<string, unknown>>
  readonly ExposedPorts?: Readonly<Record<string, unknown>>
  readonly Labels?: Readonly<Record<string, string>>
}

/** An image config; unknown fields are kept. */
export interface ImageConfig {
  readonly architecture: string
  readonly os: string
  readonly variant?: string
  readonly created?: string
  readonly config?: RunConfig
  readonly rootfs: {readonly type: 'layers'; readonly diff_ids: readonly Digest[]}
  readonly history?: readonly HistoryEntry[]
}

/** Either document that an image reference may resolve to. */
export type ImageDocument =
  | {readonly kind: 'manifest'; readonly manifest: ImageManifest}
  | {readonly kind: 'index'; readonly index: ImageIndex}

/** Parses a manifest or index; `mediaType` is the descriptor's. Throws `corrupt` or `unsupported`. */
export function parseImageDocument(bytes: Uint8Array, mediaType: string, where: string): ImageDocument {
  const value = parseJsonObject(bytes, where)
  if (value.schemaVersion === 1) {
    throw new CodedError(
      'unsupported',
      `Cannot use ${where}: Docker schema 1 manifests are obsolete; push the image again with a current client`,
    )
  }
  // A document that could be read as both kinds is a known attack (CVE-2021-41190): refuse it.
  if ('manifests' in value && ('layers' in value || 'config' in value)) {
    throw new CodedError(
      'corrupt',
      `Cannot use ${where}: it is ambiguous, with both "manifests" and "layers"`,
    )
  }
  const own = typeof value.mediaType === 'string' && value.mediaType !== '' ? value.mediaType : undefined
  const known = isIndexMediaType(mediaType) || isManifestMediaType(mediaType)
  if (own !== undefined && known && own !== mediaType) {
    throw new CodedError(
      'corrupt',
      `Cannot use ${where}: its mediaType ${JSON.stringify(own)} contradicts its descriptor's ${JSON.stringify(mediaType)}`,
    )
  }
  const type = known ? mediaType : (own ?? ('manifests' in value ? OCI_INDEX : OCI_MANIFEST))
  if (isIndexMediaType(type)) return {kind: 'index', index: parseIndex(value, type, where)}
  if (isManifestMediaType(type)) return {kind: 'manifest', manifest: parseManifest(value, type, where)}
  throw new CodedError(
    'unsupported',
    `Cannot use ${where}: unknown manifest media type ${JSON.stringify(type)}`,
  )
}

/** What an artifact says it is about (image-spec manifest.md and image-index.md, "subject"); throws `corrupt`. */
export function subjectOf(document: ImageDocument): Descriptor | undefined {
  const {subject} = document.kind === 'index' ? document.index : document.manifest
  return subject === undefined || subject === null
    ? undefined
    : parseDescriptor(subject, 'the subject of a manifest')
}

/** The tag under which clients keep the referrers of a manifest at registries that do not (distribution-spec). */
export function referrersTag(subject: Digest): string {
  return subject.replace(':', '-')
}

/** Parses an image config; throws `corrupt`. */
export function parseImageConfig(bytes: Uint8Array, where: string): ImageConfig {
  const value = parseJsonObject(bytes, where)
  const rootfs = parseRootfs(value.rootfs, where)
  for (const key of ['architecture', 'os'] as const) {
    if (typeof value[key] !== 'string')
      throw new CodedError('corrupt', `Cannot use ${where}: ${JSON.stringify(key)} is missing`)
  }
  checkRunConfig(value.config, where)
  if (
    value.history !== undefined &&
    value.history !== null &&
    !(Array.isArray(value.history) && value.history.every(isRecord))
  ) {
    throw new CodedError('corrupt', `Cannot use ${where}: "history" is malformed`)
  }
  return {...value, rootfs} as unknown as ImageConfig
}

/** Of an image without layers, Go leaves out the list or writes null for it. */
function parseRootfs(value: unknown, where: string): ImageConfig['rootfs'] {
  const rootfs = value ?? {}
  const diffIds = isRecord(rootfs) ? listOrNull(rootfs.diff_ids ?? null) : undefined
  if (!diffIds?.every(isDigest)) {
    throw new CodedError('corrupt', `Cannot use ${where}: "rootfs.diff_ids" is malformed`)
  }
  return {...(rootfs as Record<string, unknown>), type: 'layers', diff_ids: diffIds}
}

/** Go writes null for a list that nothing was ever added to. */
function listOrNull(value: unknown): readonly unknown[] | undefined {
  if (value === null) return []
  return Array.isArray(value) ? value : undefined
}

/** The platform that a config says its image is for. */
export function platformOfConfig(config: ImageConfig): Platform {
  return normalizePlatform({
    os: config.os,
    architecture: config.architecture,
    ...(config.variant ? {variant: config.variant} : {}),
  })
}

/** The bytes of a document as we write it: compact JSON. */
export function encodeJson(document: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(document))
}

/** The OCI counterpart of a manifest or index media type. */
export function toOciMediaType(mediaType: string): string {
  if (mediaType === DOCKER_LIST) return OCI_INDEX
  if (mediaType === DOCKER_MANIFEST) return OCI_MANIFEST
  return mediaType
}

function parseManifest(value: Record<string, unknown>, mediaType: string, where: string): ImageManifest {
  const layers = listOrNull(value.layers)
  if (!layers) throw new CodedError('corrupt', `Cannot use ${where}: "layers" is missing`)
  if (layers.length > MAX_LAYERS) {
    throw new CodedError(
      'corrupt',
      `Cannot use ${where}: ${layers.length} layers exceed the limit of ${MAX_LAYERS}`,
    )
  }
  return {
    ...value,
    schemaVersion: 2,
    mediaType,
    config: parseDescriptor(value.config, `the config descriptor of ${where}`),
    layers: layers.map((layer, index) => parseDescriptor(layer, `layer ${index} of ${where}`)),
  }
}

function parseIndex(value: Record<string, unknown>, mediaType: string, where: string): ImageIndex {
  const manifests = listOrNull(value.manifests)
  if (!manifests) throw new CodedError('corrupt', `Cannot use ${where}: "manifests" is missing`)
  if (manifests.length > MAX_INDEX_ENTRIES) {
    throw new CodedError(
      'corrupt',
      `Cannot use ${where}: ${manifests.length} manifests exceed the limit of ${MAX_INDEX_ENTRIES}`,
    )
  }
  return {
    ...value,
    schemaVersion: 2,
    mediaType,
    manifests: manifests.map((entry, index) => parseDescriptor(entry, `manifest ${index} of ${where}`)),
  }
}

function checkRunConfig(config: unknown, where: string): void {
  if (config === undefined || config === null) return
  if (!isRecord(config)) throw new CodedError('corrupt', `Cannot use ${where}: "config" is not an object`)
  for (const key of ['Env', 'Entrypoint', 'Cmd']) {
    const list = config[key]
    if (
      list !== undefined &&
      list !== null &&
      !(Array.isArray(list) && list.every(item => typeof item === 'string'))
    ) {
      throw new CodedError('corrupt', `Cannot use ${where}: "config.${key}" is not a list of strings`)
    }
  }
  for (const key of ['User', 'WorkingDir', 'StopSignal']) {
    const text = config[key]
    if (text !== undefined && text !== null && typeof text !== 'string') {
      throw new CodedError('corrupt', `Cannot use ${where}: "config.${key}" is not a string`)
    }
  }
}

function parseJsonObject(bytes: Uint8Array, where: string): Record<string, unknown> {
  if (bytes.length > MAX_MANIFEST_SIZE) {
    throw new CodedError(
      'corrupt',
      `Cannot use ${where}: ${bytes.length} bytes exceed the limit of ${MAX_MANIFEST_SIZE}`,
    )
  }
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', {fatal: true}).decode(bytes))
  } catch (cause) {
    throw new CodedError('corrupt', `Cannot parse ${where} as JSON`, {cause})
  }
  if (!isRecord(value)) throw new CodedError('corrupt', `Cannot use ${where}: it is not a JSON object`)
  return value
}
