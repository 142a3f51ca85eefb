// Writes OCI archives: a layout's index, marker and blobs, and for Docker's sake a manifest.json.

import {readdir, readFile, stat} from 'node:fs/promises'
import {join} from 'node:path'
import {collectGarbage} from '../layout/collect-garbage.ts'
import {changeLayoutIndex} from '../layout/layout-index.ts'
import type {LayoutPaths} from '../layout/layout-paths.ts'
import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {hexOf} from '../oci/digest.ts'
import {encodeJson, type ImageManifest} from '../oci/manifest.ts'
import {isConfigMediaType, layerCompressionOf} from '../oci/media-type.ts'
import {hostPlatform, matchesPlatform} from '../oci/platform.ts'
import type {ArchiveStaging} from './archive-staging.ts'
import type {DockerArchiveEntry} from './docker-archive-format.ts'
import {readManifest} from './read-manifest.ts'
import type {MemberToWrite} from './tar-writer.ts'

export interface OciArchiveOptions extends CallOptions {
  /** Names that `docker load` shall give the images, by root digest; without it there is no manifest.json. */
  readonly dockerNames?: ReadonlyMap<string, readonly string[]> | undefined
}

/** Writes the staged blobs that `entries` reach as an archive with these entries in its index. */
export async function writeOciArchive(
  staging: ArchiveStaging,
  entries: readonly Descriptor[],
  options: OciArchiveOptions,
): Promise<void> {
  const {paths, content} = staging
  await changeLayoutIndex(paths, () => entries)
  // A conversion may have staged what its result does not need.
  await collectGarbage(paths, options)
  const manifest =
    options.dockerNames && (await dockerManifest(content, entries, options.dockerNames, options))
  await staging.finish(membersOf(paths, manifest), options)
}

/** Documents first, so that a reader of a pipe knows early what it gets. */
async function* membersOf(
  paths: LayoutPaths,
  manifest: readonly DockerArchiveEntry[] | undefined,
): AsyncGenerator<MemberToWrite> {
  yield {name: 'oci-layout', bytes: await readFile(paths.marker)}
  yield {name: 'index.json', bytes: await readFile(paths.index)}
  if (manifest && manifest.length > 0) yield {name: 'manifest.json', bytes: encodeJson(manifest)}
  for (const name of (await readdir(paths.blobs)).sort()) {
    const file = join(paths.blobs, name)
    yield {name: `blobs/sha256/${name}`, file, size: (await stat(file)).size}
  }
}

async function dockerManifest(
  content: ContentStore,
  entries: readonly Descriptor[],
  names: ReadonlyMap<string, readonly string[]>,
  options: CallOptions,
): Promise<DockerArchiveEntry[]> {
  const images = new Map<string, DockerArchiveEntry>()
  for (const {digest, ...entry} of entries) {
    const manifest = await manifestForDocker(content, {digest, ...entry}, options)
    if (!manifest || images.has(digest)) continue
    images.set(digest, {
      Config: blobName(manifest.config),
      RepoTags: names.get(digest) ?? [],
      Layers: manifest.layers.map(blobName),
    })
  }
  return [...images.values()]
}

/** The one image that Docker would load: of several platforms, this machine's, as `ctr` chooses too. */
async function manifestForDocker(
  content: ContentStore,
  root: Descriptor,
  options: CallOptions,
): Promise<ImageManifest | undefined> {
  const document = await readManifest(content, root, options)
  if (document.kind === 'manifest') return isLoadable(document.manifest) ? document.manifest : undefined
  const wanted = hostPlatform()
  const present: Descriptor[] = []
  for (const entry of document.index.manifests) {
    if (await content.info(entry, options)) present.push(entry)
  }
  const chosen =
    present.find(({platform}) => platform && matchesPlatform(wanted, platform)) ??
    (present.length === 1 ? present[0] : undefined)
  const inner = chosen && (await readManifest(content, chosen, options))
  return inner?.kind === 'manifest' && isLoadable(inner.manifest) ? inner.manifest : undefined
}

function isLoadable({config, layers}: ImageManifest): boolean {
  return (
    isConfigMediaType(config.mediaType) &&
    layers.every(({mediaType}) => layerCompressionOf(mediaType) !== undefined)
  )
}

function blobName({digest}: Descriptor): string {
  return `blobs/sha256/${hexOf(digest)}`
}
