// Where an image is, as people write it: skopeo's transports, and plain names for the store.

import {CodedError} from '../errors/coded-error.ts'
import {parseCid} from '../ipfs/cid.ts'
import {formatReference, parseReference, withDefaultTag} from '../oci/reference.ts'

/** A place for one image. Names and references are as written; paths are relative to the working directory. */
export type ImageLocation =
  | {readonly transport: 'store'; readonly name: string}
  | {readonly transport: 'docker'; readonly reference: string}
  | {readonly transport: 'containerd'; readonly name: string}
  | {readonly transport: 'ipfs'; readonly cid: string}
  | {readonly transport: 'oci' | 'oci-archive'; readonly path: string; readonly tag?: string}
  | DockerArchiveLocation

/** An image of a `docker save` archive, by its canonical name or by its place (`@0`), or the only one. */
export interface DockerArchiveLocation {
  readonly transport: 'docker-archive'
  readonly path: string
  readonly reference?: string
  readonly imageIndex?: number
}

/** Reference names of a layout, as containers/image accepts them (oci/internal, `refRegexp`). */
const TAG_COMPONENT = '[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*'
const TAG_PATTERN = new RegExp(`^${TAG_COMPONENT}(?:/${TAG_COMPONENT})*$`)
const MAX_TAG_LENGTH = 1024

/**
 * Parses a location. `docker://`, `ipfs://`, `oci:`, `oci-archive:`, `docker-archive:` and `containerd:` are transports, as in
 * skopeo also where an image could have that name (`oci:1` is a directory; write `docker.io/library/oci:1`). Everything
 * else is the name of an image in the store. Throws `invalid-argument`.
 */
export function parseImageLocation(text: string): ImageLocation {
  const colon = text.indexOf(':')
  const transport = text.slice(0, Math.max(colon, 0))
  const rest = text.slice(colon + 1)
  switch (transport) {
    case 'docker':
      // `docker:1` without slashes is a version of the image `docker`, which is common; skopeo refuses it.
      if (!rest.startsWith('//')) return storeLocation(text)
      parseReference(rest.slice(2))
      return {transport, reference: rest.slice(2)}
    case 'containerd':
      parseReference(rest)
      return {transport, name: rest}
    case 'ipfs':
      return rest.startsWith('//') ? {transport, cid: parseCid(rest.slice(2))} : storeLocation(text)
    case 'oci':
    case 'oci-archive':
      return parseLayoutLocation(text, transport, rest)
    case 'docker-archive':
      return parseDockerArchiveLocation(text, rest)
    default:
      return storeLocation(text)
  }
}

/** The file of an archive, as a list; empty for every other place. */
export function archivePaths(text: string): readonly string[] {
  const location = parseImageLocation(text)
  return location.transport === 'oci-archive' || location.transport === 'docker-archive'
    ? [location.path]
    : []
}

function storeLocation(text: string): ImageLocation {
  parseReference(text)
  return {transport: 'store', name: text}
}

function parseLayoutLocation(text: string, transport: 'oci' | 'oci-archive', rest: string): ImageLocation {
  const {path, image} = splitPath(text, rest)
  if (image === undefined) return {transport, path}
  if (image.length > MAX_TAG_LENGTH || !TAG_PATTERN.test(image)) {
    throw invalid(text, `${JSON.stringify(image)} is no valid image name in a layout`)
  }
  return {transport, path, tag: image}
}

function parseDockerArchiveLocation(text: string, rest: string): DockerArchiveLocation {
  const {path, image} = splitPath(text, rest)
  if (image === undefined) return {transport: 'docker-archive', path}
  if (image.startsWith('@')) {
    if (!/^@[0-9]{1,6}$/.test(image)) {
      throw invalid(text, `${JSON.stringify(image)} is no image index such as "@0"`)
    }
    return {transport: 'docker-archive', path, imageIndex: Number(image.slice(1))}
  }
  const reference = withDefaultTag(parseReference(image))
  if (reference.digest !== undefined) throw invalid(text, 'a docker archive cannot be asked for a digest')
  return {transport: 'docker-archive', path, reference: formatReference(reference)}
}

/** A path ends at the first colon, as in skopeo: paths with colons cannot be written. */
function splitPath(text: string, rest: string): {path: string; image: string | undefined} {
  const colon = rest.indexOf(':')
  const path = colon < 0 ? rest : rest.slice(0, colon)
  const image = colon < 0 ? '' : rest.slice(colon + 1)
  if (path === '') throw invalid(text, 'the path is empty')
  if (path.includes('\0')) throw invalid(text, 'the path has a zero byte')
  return {path, image: image === '' ? undefined : image}
}

function invalid(text: string, problem: string): CodedError {
  return new CodedError('invalid-argument', `Cannot parse image location ${JSON.stringify(text)}: ${problem}`)
}
