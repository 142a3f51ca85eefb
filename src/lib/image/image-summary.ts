// What `image ls` and `image inspect` tell about an image: the documents that are in the store, and how large they are.

import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {
  type ImageManifest,
  MAX_CONFIG_SIZE,
  MAX_MANIFEST_SIZE,
  parseImageConfig,
  parseImageDocument,
  platformOfConfig,
} from '../oci/manifest.ts'
import {isConfigMediaType, isIndexMediaType, isManifestMediaType} from '../oci/media-type.ts'
import {formatPlatform, normalizePlatform} from '../oci/platform.ts'
import {readWholeBlob} from './image-tree.ts'

/** One manifest of an image. */
export interface ManifestSummary {
  readonly descriptor: Descriptor
  /** `linux/amd64`; undefined for what is no image, such as an attestation. */
  readonly platform: string | undefined
  /** The manifest, when it is in the store; an index may name others. */
  readonly manifest: ImageManifest | undefined
}

/** Indexes nested deeper than this are not followed; the rest of the program refuses them. */
const MAX_DEPTH = 3

/** The manifests under `root`, in the order of the index. What is not in the store is listed without its manifest. */
export async function summarizeImage(
  content: ContentStore,
  root: Descriptor,
  options: CallOptions = {},
): Promise<ManifestSummary[]> {
  return summarize(content, root, options, MAX_DEPTH)
}

/** Bytes of what is in the store: manifests, configs and layers, each digest once. The root of an index counts too. */
export function sizeOf(root: Descriptor, summaries: readonly ManifestSummary[]): number {
  const blobs = new Map([[root.digest, root.size]])
  for (const {descriptor, manifest} of summaries) {
    if (!manifest) continue
    for (const blob of [descriptor, manifest.config, ...manifest.layers]) blobs.set(blob.digest, blob.size)
  }
  return [...blobs.values()].reduce((sum, size) => sum + size, 0)
}

/** The platforms of the manifests that are in the store, each once. */
export function platformsOf(summaries: readonly ManifestSummary[]): string[] {
  const platforms = summaries.flatMap(({platform, manifest}) => (platform && manifest ? [platform] : []))
  return [...new Set(platforms)]
}

async function summarize(
  content: ContentStore,
  descriptor: Descriptor,
  options: CallOptions,
  depth: number,
): Promise<ManifestSummary[]> {
  const isDocument = isIndexMediaType(descriptor.mediaType) || isManifestMediaType(descriptor.mediaType)
  const present = isDocument && (await content.info(descriptor, options)) !== undefined
  if (!present || depth === 0)
    return [{descriptor, platform: claimedPlatform(descriptor), manifest: undefined}]
  const bytes = await readWholeBlob(content, descriptor, MAX_MANIFEST_SIZE, options)
  const document = parseImageDocument(bytes, descriptor.mediaType, `the manifest ${descriptor.digest}`)
  if (document.kind === 'index') {
    const {manifests} = document.index
    const found = await Promise.all(manifests.map(entry => summarize(content, entry, options, depth - 1)))
    return found.flat()
  }
  const {manifest} = document
  const platform = claimedPlatform(descriptor) ?? (await configPlatform(content, manifest, options))
  return [{descriptor, platform, manifest}]
}

/** What the index says; `unknown/unknown` is how BuildKit marks attestations. */
function claimedPlatform({platform}: Descriptor): string | undefined {
  return platform && platform.os !== 'unknown' ? formatPlatform(normalizePlatform(platform)) : undefined
}

async function configPlatform(
  content: ContentStore,
  manifest: ImageManifest,
  options: CallOptions,
): Promise<string | undefined> {
  const {config} = manifest
  if (!isConfigMediaType(config.mediaType) || !(await content.info(config, options))) return undefined
  const bytes = await readWholeBlob(content, config, MAX_CONFIG_SIZE, options)
  return formatPlatform(platformOfConfig(parseImageConfig(bytes, `the config ${config.digest}`)))
}
