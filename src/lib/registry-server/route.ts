// Paths of the distribution API (distribution-spec, "Endpoints"), parsed to what they ask for.

import {type Digest, isDigest} from '../oci/digest.ts'
import {Problem} from './problem.ts'

export type Route =
  | {readonly kind: 'base'}
  | {readonly kind: 'catalog'}
  | {readonly kind: 'tags'; readonly repository: string}
  | {readonly kind: 'manifest'; readonly repository: string; readonly reference: ManifestReference}
  | {readonly kind: 'blob'; readonly repository: string; readonly digest: Digest}
  | {readonly kind: 'uploads'; readonly repository: string}
  | {readonly kind: 'upload'; readonly repository: string; readonly id: string}
  | {readonly kind: 'referrers'; readonly repository: string; readonly digest: Digest}

export type ManifestReference = {readonly tag: string} | {readonly digest: Digest}

const MAX_PATH_LENGTH = 1024
/** distribution-spec, "Pulling manifests": names together with the host stay under 255 characters. */
const MAX_REPOSITORY_LENGTH = 255
const COMPONENT = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*'
const REPOSITORY_PATTERN = new RegExp(`^${COMPONENT}(?:/${COMPONENT})*$`)
const TAG_PATTERN = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/
/** The repository comes first and may hold slashes: what follows it is found from the end. */
const ROUTE_PATTERN =
  /^\/v2\/(.+)\/(?:(tags)\/list|(manifests)\/([^/]+)|blobs\/(uploads)\/([^/]*)|(blobs)\/([^/]+)|(referrers)\/([^/]+))$/

/** Parses the path of a URL, already percent-decoded; undefined when the API has no such path. */
export function parseRoute(path: string): Route | undefined {
  if (path === '/v2' || path === '/v2/') return {kind: 'base'}
  if (path === '/v2/_catalog') return {kind: 'catalog'}
  const match = path.length <= MAX_PATH_LENGTH ? ROUTE_PATTERN.exec(path) : null
  if (!match) return undefined
  const [, repository, tags, manifests, reference, uploads, id, blobs, digest, , subject] = match
  checkRepository(repository!)
  if (tags) return {kind: 'tags', repository: repository!}
  if (manifests)
    return {kind: 'manifest', repository: repository!, reference: parseManifestReference(reference!)}
  if (uploads)
    return id === ''
      ? {kind: 'uploads', repository: repository!}
      : {kind: 'upload', repository: repository!, id: id!}
  if (blobs) return {kind: 'blob', repository: repository!, digest: parseRouteDigest(digest!)}
  return {kind: 'referrers', repository: repository!, digest: parseRouteDigest(subject!)}
}

/** A digest that a client sent; only sha256 is kept here. */
export function parseRouteDigest(text: string): Digest {
  if (isDigest(text)) return text
  throw new Problem('DIGEST_INVALID', `${quote(text)} is no sha256 digest`)
}

export function isRepository(text: string): boolean {
  return text.length <= MAX_REPOSITORY_LENGTH && REPOSITORY_PATTERN.test(text)
}

export function isTag(text: string): boolean {
  return TAG_PATTERN.test(text)
}

function checkRepository(text: string): void {
  if (!isRepository(text)) throw new Problem('NAME_INVALID', `${quote(text)} is no valid repository name`)
}

function parseManifestReference(text: string): ManifestReference {
  if (text.includes(':')) return {digest: parseRouteDigest(text)}
  if (isTag(text)) return {tag: text}
  throw new Problem('TAG_INVALID', `${quote(text)} is no valid tag`)
}

function quote(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text)
}
