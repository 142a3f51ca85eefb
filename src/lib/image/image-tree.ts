// Reading an image's documents: root descriptor -> manifests -> config and layers, each checked before it is believed.

import {CodedError, hasCode} from '../errors/coded-error.ts'
import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {ImageSource} from '../oci/image-store.ts'
import {
  type ImageConfig,
  type ImageDocument,
  type ImageIndex,
  type ImageManifest,
  MAX_CONFIG_SIZE,
  MAX_MANIFEST_SIZE,
  parseImageConfig,
  parseImageDocument,
  platformOfConfig,
} from '../oci/manifest.ts'
import {isConfigMediaType} from '../oci/media-type.ts'
import {formatPlatform, matchesPlatform, normalizePlatform, type Platform} from '../oci/platform.ts'

/** Which platforms of a multi-platform image an operation is about. */
export type PlatformSelection = 'all' | readonly Platform[]

/** One manifest of an image, with the platform it is for where that is known. */
export interface ManifestNode {
  readonly descriptor: Descriptor
  readonly manifest: ImageManifest
  readonly platform: Platform | undefined
}

/** An image's root document, and those of its manifests that were selected. */
export interface ImageTree {
  readonly root: Descriptor
  /** Present when the root is an index; then `manifests` are some of its entries, in its order. */
  readonly index: ImageIndex | undefined
  readonly manifests: readonly ManifestNode[]
  /** Indexes between the root and the manifests, innermost first; images in use have none. */
  readonly nestedIndexes: readonly Descriptor[]
}

/** Indexes nested in an index are legal and unused in practice; deeper than this is refused. */
const MAX_INDEX_DEPTH = 2

/** The annotation by which BuildKit marks attestations of another manifest of the same index. */
const REFERENCE_TYPE = 'vnd.docker.reference.type'
/** And the one that says whose attestation it is. */
const REFERENCE_DIGEST = 'vnd.docker.reference.digest'

/** True for an index entry that attests another manifest (SBOM, provenance) and is no image itself. */
export function isAttestation(descriptor: Descriptor): boolean {
  return descriptor.annotations?.[REFERENCE_TYPE] === 'attestation-manifest'
}

/** The attestations of the tree's manifests, whether they were selected with them or not. */
export function attestationsOf({index, manifests}: ImageTree): readonly Descriptor[] {
  const digests = new Set<string>(manifests.map(({descriptor}) => descriptor.digest))
  return (index?.manifests ?? []).filter(entry => {
    const subject = entry.annotations?.[REFERENCE_DIGEST]
    return isAttestation(entry) && (subject === undefined || digests.has(subject))
  })
}

/** Throws `unsupported` for manifests of which none is a container image, but all are artifacts, such as Helm charts. */
export function requireImage(nodes: readonly ManifestNode[], verb: string): void {
  const [first] = nodes
  if (!first || nodes.some(({manifest}) => isConfigMediaType(manifest.config.mediaType))) return
  const {artifactType, config} = first.manifest
  throw new CodedError(
    'unsupported',
    `Cannot ${verb} ${first.descriptor.digest}: it is no container image, but an artifact of type ${JSON.stringify(artifactType ?? config.mediaType)}`,
  )
}

/**
 * Reads the image under `root`. Throws `not-found` when no manifest matches the selection or one that matches is not
 * in the store, `corrupt` when a document is not what its descriptor says.
 */
export async function readImageTree(
  content: ContentStore,
  root: Descriptor,
  selection: PlatformSelection,
  options: CallOptions = {},
): Promise<ImageTree> {
  const document = await readDocument(content, root, options)
  if (document.kind === 'manifest')
    return readSingleManifest(content, root, document.manifest, selection, options)
  const {index} = document
  const chosen = index.manifests.filter(entry => isSelected(entry, selection))
  const found = await Promise.all(chosen.map(entry => readIndexEntry(content, entry, selection, options, 1)))
  const manifests = found.flatMap(branch => branch.manifests)
  if (manifests.length === 0) throw noSuchPlatform(content, selection, index.manifests)
  return {root, index, manifests, nestedIndexes: found.flatMap(branch => branch.nestedIndexes)}
}

/** Reads what the name of `source` stands for now; throws as `readImageTree`. */
export async function readImage(
  source: ImageSource,
  selection: PlatformSelection,
  options: CallOptions = {},
): Promise<ImageTree> {
  return readImageTree(source.content, await source.resolve(options), selection, options)
}

/** The config of a manifest; throws `corrupt` when it does not describe the manifest's layers. */
export async function readConfig(
  content: ContentStore,
  manifest: ImageManifest,
  options: CallOptions = {},
): Promise<ImageConfig> {
  const bytes = await readWholeBlob(content, manifest.config, MAX_CONFIG_SIZE, options)
  const config = parseImageConfig(bytes, `the config ${manifest.config.digest} in ${content.name}`)
  if (config.rootfs.diff_ids.length !== manifest.layers.length) {
    throw new CodedError(
      'corrupt',
      `Cannot use the config ${manifest.config.digest} in ${content.name}: it lists ${config.rootfs.diff_ids.length} layers, its manifest ${manifest.layers.length}`,
    )
  }
  return config
}

/** All bytes of a blob that must fit in memory; digest and size are verified. `limit` is in bytes. */
export async function readWholeBlob(
  content: ContentStore,
  descriptor: Descriptor,
  limit: number,
  options: CallOptions = {},
): Promise<Uint8Array> {
  if (descriptor.size > limit) {
    throw new CodedError(
      'corrupt',
      `Cannot read ${descriptor.digest} in ${content.name}: its ${descriptor.size} bytes exceed the limit of ${limit}`,
    )
  }
  await using blob = await content.open(descriptor, options)
  const parts: Uint8Array[] = []
  for await (const part of blob.stream(options)) parts.push(part)
  return Buffer.concat(parts)
}

async function readDocument(
  content: ContentStore,
  descriptor: Descriptor,
  options: CallOptions,
): Promise<ImageDocument> {
  const bytes = await readWholeBlob(content, descriptor, MAX_MANIFEST_SIZE, options)
  return parseImageDocument(
    bytes,
    descriptor.mediaType,
    `the manifest ${descriptor.digest} in ${content.name}`,
  )
}

async function readSingleManifest(
  content: ContentStore,
  root: Descriptor,
  manifest: ImageManifest,
  selection: PlatformSelection,
  options: CallOptions,
): Promise<ImageTree> {
  const platform = root.platform
    ? normalizePlatform(root.platform)
    : await platformOfManifest(content, manifest, options)
  if (selection !== 'all' && platform && !selection.some(wanted => matchesPlatform(wanted, platform))) {
    throw noSuchPlatform(content, selection, [{...root, platform}])
  }
  return {root, index: undefined, manifests: [{descriptor: root, manifest, platform}], nestedIndexes: []}
}

/** What one entry of an index leads to. */
type Branch = Pick<ImageTree, 'manifests' | 'nestedIndexes'>

async function readIndexEntry(
  content: ContentStore,
  entry: Descriptor,
  selection: PlatformSelection,
  options: CallOptions,
  depth: number,
): Promise<Branch> {
  const document = await readDocument(content, entry, options).catch(cause => {
    throw hasCode(cause, 'not-found') ? missingEntry(content, entry, cause) : cause
  })
  if (document.kind === 'manifest') {
    const platform = entry.platform ?? (await platformOfManifest(content, document.manifest, options))
    if (selection !== 'all' && platform && !selection.some(wanted => matchesPlatform(wanted, platform))) {
      return {manifests: [], nestedIndexes: []}
    }
    const node = {
      descriptor: entry,
      manifest: document.manifest,
      platform: platform && normalizePlatform(platform),
    }
    return {manifests: [node], nestedIndexes: []}
  }
  if (depth >= MAX_INDEX_DEPTH) {
    throw new CodedError(
      'unsupported',
      `Cannot read ${entry.digest} in ${content.name}: indexes are nested too deeply`,
    )
  }
  const nested = document.index.manifests.filter(inner => isSelected(inner, selection))
  const found = await Promise.all(
    nested.map(inner => readIndexEntry(content, inner, selection, options, depth + 1)),
  )
  return {
    manifests: found.flatMap(branch => branch.manifests),
    nestedIndexes: [...found.flatMap(branch => branch.nestedIndexes), entry],
  }
}

async function platformOfManifest(
  content: ContentStore,
  manifest: ImageManifest,
  options: CallOptions,
): Promise<Platform | undefined> {
  if (!isConfigMediaType(manifest.config.mediaType)) return undefined
  return platformOfConfig(await readConfig(content, manifest, options))
}

/** Entries without a platform are looked at, because only their config can tell. */
function isSelected(entry: Descriptor, selection: PlatformSelection): boolean {
  if (selection === 'all') return true
  if (isAttestation(entry)) return false
  const {platform} = entry
  return platform === undefined || selection.some(wanted => matchesPlatform(wanted, platform))
}

/** A pull of some platforms leaves the others out of the store: say which, and what to do. */
function missingEntry(content: ContentStore, entry: Descriptor, cause: unknown): CodedError {
  const platform = entry.platform ? formatPlatform(entry.platform) : 'an unnamed platform'
  return new CodedError(
    'not-found',
    `Cannot find the manifest ${entry.digest} for ${platform} in ${content.name}: pull it with --all-platforms, or leave it out with --platform`,
    {cause},
  )
}

function noSuchPlatform(
  content: ContentStore,
  selection: PlatformSelection,
  offered: readonly Descriptor[],
): CodedError {
  const wanted = selection === 'all' ? 'any platform' : selection.map(formatPlatform).join(', ')
  const names = offered
    .filter(entry => entry.platform && !isAttestation(entry))
    .map(entry => formatPlatform(entry.platform!))
  const hint = names.length > 0 ? `; it is for ${names.join(', ')}` : ''
  return new CodedError('not-found', `Cannot find an image for ${wanted} in ${content.name}${hint}`)
}
