// The transports `oci-archive:FILE[:TAG]` and `docker-archive:FILE[:REFERENCE]`, with skopeo's rules.

import {stat} from 'node:fs/promises'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import {chooseEntry} from '../layout/choose-entry.ts'
import {plainTarget} from '../layout/image-entries.ts'
import {REF_NAME} from '../oci/annotations.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {type Descriptor, withAnnotations} from '../oci/descriptor.ts'
import type {ImageSource, ImageTarget} from '../oci/image-store.ts'
import {formatReference, parseReference, withDefaultTag} from '../oci/reference.ts'
import {stageArchive} from './archive-staging.ts'
import type {ArchivedImage, ImageArchive} from './image-archive.ts'
import {openArchive} from './open-archive.ts'
import {writeDockerArchive} from './write-docker-archive.ts'
import {writeOciArchive} from './write-oci-archive.ts'

/** Which image of an OCI archive; without `tag`, a source must hold exactly one. */
export interface OciArchiveImage {
  readonly path: string
  readonly tag?: string | undefined
}

/** Which image of a docker archive: by canonical name, by its place in manifest.json, or the only one. */
export interface DockerArchiveImage {
  readonly path: string
  readonly reference?: string | undefined
  readonly imageIndex?: number | undefined
}

/** Opens an image of an OCI archive for reading. */
export async function openOciArchiveSource(
  {path, tag}: OciArchiveImage,
  options: CallOptions = {},
): Promise<ImageSource> {
  const name = `oci-archive:${path}${tag === undefined ? '' : `:${tag}`}`
  const archive = await openArchive(path, {...options, format: 'oci', name})
  const targets = archive.images.map(image => image.target)
  return archiveSource(archive, name, () => chooseEntry(targets, tag, name))
}

/** Opens an OCI archive for writing; publishing writes it, and replaces a file of that name. */
export async function openOciArchiveTarget({path, tag}: OciArchiveImage): Promise<ImageTarget> {
  const name = `oci-archive:${path}${tag === undefined ? '' : `:${tag}`}`
  const staging = await stageArchive(path, name)
  return {
    name,
    content: staging.content,
    async publish(root, options = {}) {
      const target = plainTarget(root)
      const entry = tag === undefined ? target : withAnnotations(target, {[REF_NAME]: tag})
      await writeOciArchive(staging, [entry], options)
    },
    [Symbol.asyncDispose]: () => staging[Symbol.asyncDispose](),
  }
}

/** Opens an image of a docker archive for reading. */
export async function openDockerArchiveSource(
  image: DockerArchiveImage,
  options: CallOptions = {},
): Promise<ImageSource> {
  const name = nameOf(image)
  const archive = await openArchive(image.path, {...options, format: 'docker', name})
  return archiveSource(archive, name, () => chooseImage(archive.images, image).target)
}

/**
 * Opens a docker archive for writing one image of one platform; its layers are decompressed. Throws `already-exists`
 * when there is such a file, which skopeo and podman do not change either.
 */
export async function openDockerArchiveTarget(image: DockerArchiveImage): Promise<ImageTarget> {
  const {path, reference, imageIndex} = image
  const name = nameOf(image)
  if (imageIndex !== undefined) {
    throw new CodedError(
      'invalid-argument',
      `Cannot write ${name}: an image is written by name, not by "@index"`,
    )
  }
  if (await hasContent(path)) {
    throw new CodedError(
      'already-exists',
      `Cannot write ${name}: the file is there, and images are not added to it`,
    )
  }
  const staging = await stageArchive(path, name)
  return {
    name,
    content: staging.content,
    publish: (root, options = {}) =>
      writeDockerArchive(staging, root, reference === undefined ? [] : [reference], options),
    [Symbol.asyncDispose]: () => staging[Symbol.asyncDispose](),
  }
}

function archiveSource(archive: ImageArchive, name: string, choose: () => Descriptor): ImageSource {
  return {
    name,
    content: archive.content,
    async resolve({signal} = {}) {
      signal?.throwIfAborted()
      return choose()
    },
    [Symbol.asyncDispose]: () => archive[Symbol.asyncDispose](),
  }
}

function chooseImage(images: readonly ArchivedImage[], image: DockerArchiveImage): ArchivedImage {
  const {reference, imageIndex} = image
  const names = images.flatMap(({names: found}, index) => (found.length > 0 ? found : [`@${index}`]))
  const held = `it holds ${names.slice(0, 10).join(', ') || 'none'}`
  if (reference === undefined && imageIndex === undefined && images.length > 1) {
    throw new CodedError('invalid-argument', `Cannot choose an image of ${nameOf(image)}: ${held}; name one`)
  }
  const found =
    reference === undefined
      ? images[imageIndex ?? 0]
      : images.find(candidate => candidate.names.some(name => canonical(name) === reference))
  if (!found) throw new CodedError('not-found', `Cannot find an image for ${nameOf(image)}; ${held}`)
  return found
}

/** RepoTags hold short names; one that is no reference can only be meant literally. */
function canonical(name: string): string {
  try {
    return formatReference(withDefaultTag(parseReference(name)))
  } catch {
    return name
  }
}

async function hasContent(path: string): Promise<boolean> {
  try {
    const found = await stat(path)
    return found.isFile() && found.size > 0
  } catch (error) {
    if (hasCode(error, 'not-found')) return false
    throw error
  }
}

function nameOf({path, reference, imageIndex}: DockerArchiveImage): string {
  const image = reference ?? (imageIndex === undefined ? undefined : `@${imageIndex}`)
  return `docker-archive:${path}${image === undefined ? '' : `:${image}`}`
}
