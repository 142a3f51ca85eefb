// Archives of any number of images, as `ctr images export` writes them and `docker load` reads them too.

import {CodedError} from '../errors/coded-error.ts'
import {plainTarget} from '../layout/image-entries.ts'
import {CONTAINERD_IMAGE_NAME, REF_NAME} from '../oci/annotations.ts'
import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import {type Descriptor, withAnnotations} from '../oci/descriptor.ts'
import type {ImageTarget} from '../oci/image-store.ts'
import {parseReference} from '../oci/reference.ts'
import {stageArchive} from './archive-staging.ts'
import {writeOciArchive} from './write-oci-archive.ts'

/** An archive being put together. Disposing it before `finish` leaves nothing. */
export interface ArchiveBuilder extends AsyncDisposable {
  readonly content: ContentStore
  /** A target that puts an image into the archive under its full name; disposing it is not needed. */
  target(name: string): ImageTarget
  /** Writes the archive and gives it its name. Throws `failed-precondition` when it has no images. */
  finish(options?: CallOptions): Promise<void>
}

export interface ArchiveBuilderOptions {
  /** Leaves out the manifest.json for `docker load`, as `ctr images export --skip-manifest-json`. */
  readonly skipManifestJson?: boolean | undefined
}

/** Starts an OCI archive at `path`: a file, which is replaced when it is finished, or a pipe. */
export async function createArchive(
  path: string,
  {skipManifestJson = false}: ArchiveBuilderOptions = {},
): Promise<ArchiveBuilder> {
  const staging = await stageArchive(path, `the archive "${path}"`)
  const images = new Map<string, Descriptor>()
  return {
    content: staging.content,
    target: name => ({
      name,
      content: staging.content,
      async publish(root) {
        images.set(name, plainTarget(root))
      },
      async [Symbol.asyncDispose]() {},
    }),
    async finish(options = {}) {
      if (images.size === 0) {
        throw new CodedError('failed-precondition', `Cannot write the archive "${path}": it has no images`)
      }
      const entries = [...images].map(([name, target]) => entryFor(name, target))
      const dockerNames = skipManifestJson ? undefined : namesByDigest(images)
      await writeOciArchive(staging, entries, {...options, dockerNames})
    },
    [Symbol.asyncDispose]: () => staging[Symbol.asyncDispose](),
  }
}

/** containerd's exporter: the full name for importers, and the tag, or else the digest, as the layout's name. */
function entryFor(name: string, target: Descriptor): Descriptor {
  return withAnnotations(target, {[CONTAINERD_IMAGE_NAME]: name, [REF_NAME]: shortName(name)})
}

function shortName(name: string): string {
  try {
    const {tag, digest} = parseReference(name)
    return tag ?? digest ?? name
  } catch {
    return name
  }
}

function namesByDigest(images: ReadonlyMap<string, Descriptor>): ReadonlyMap<string, readonly string[]> {
  const names = new Map<string, string[]>()
  for (const [name, {digest}] of images) names.set(digest, [...(names.get(digest) ?? []), name])
  return names
}
