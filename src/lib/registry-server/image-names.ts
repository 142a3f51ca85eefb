// How repositories of the registry and images of the store are named after each other.

import type {ImageRecord, Store} from '../oci/image-store.ts'
import {isRepository, type ManifestReference} from './route.ts'

export interface Naming {
  /** The domain of images whose repository names none: `HOST:PORT/app:1` is kept as `<domain>/app:1`. */
  readonly domain: string
}

/** What a request says about names besides its path. */
export interface NameHints {
  /** The Host header: an image may be called what its client calls it. */
  readonly host: string | undefined
  /** `ns`, by which containerd tells a mirror which registry it stands for. */
  readonly mirrored: string | undefined
}

/**
 * The name under which a pushed image is kept; one pushed by digest has a name too, so that it is no garbage. A repository that starts with a host name is a full name already.
 */
export function pushedName(repository: string, reference: ManifestReference, {domain}: Naming): string {
  return withReference(namesDomain(repository) ? repository : `${domain}/${repository}`, reference)
}

/** The image that a client means: by what we keep pushes under, by what the client calls it, or by Docker's defaults. */
export async function findImage(
  store: Store,
  repository: string,
  reference: ManifestReference,
  naming: Naming,
  hints: NameHints,
): Promise<ImageRecord | undefined> {
  for (const name of possibleNames(repository, naming, hints)) {
    const image = await store.images.get(withReference(name, reference))
    if (image) return image
  }
  return undefined
}

/** An image as the registry shows it: its repository, and its tag unless it is kept by digest. */
export interface ListedImage {
  readonly image: ImageRecord
  readonly repository: string
  readonly tag: string | undefined
}

/** All images that can be asked for; a domain with a port cannot be part of a repository. */
export async function listImages(store: Store, {domain}: Naming): Promise<ListedImage[]> {
  return (await store.images.list()).flatMap(image => {
    const {name, tag} = splitName(image.name)
    const repository = name.startsWith(`${domain}/`) ? name.slice(domain.length + 1) : name
    return isRepository(repository) ? [{image, repository, tag}] : []
  })
}

/** The images of one repository, by every name that the client may mean. */
export async function listRepository(
  store: Store,
  repository: string,
  naming: Naming,
  hints: NameHints,
): Promise<ListedImage[]> {
  const names = new Set(possibleNames(repository, naming, hints))
  return (await store.images.list()).flatMap(image => {
    const {name, tag} = splitName(image.name)
    return names.has(name) ? [{image, repository, tag}] : []
  })
}

function possibleNames(repository: string, {domain}: Naming, {host, mirrored}: NameHints): string[] {
  const docker = repository.includes('/') ? repository : `library/${repository}`
  return [
    ...(namesDomain(repository) ? [repository] : [`${domain}/${repository}`]),
    ...(host ? [`${host}/${repository}`] : []),
    ...(mirrored ? [`${mirrored}/${repository}`] : []),
    ...(namesDomain(repository) ? [] : [`docker.io/${docker}`]),
  ]
}

function withReference(name: string, reference: ManifestReference): string {
  return 'tag' in reference ? `${name}:${reference.tag}` : `${name}@${reference.digest}`
}

/** Docker's rule for what a domain is, as far as a repository can hold one. */
function namesDomain(repository: string): boolean {
  const slash = repository.indexOf('/')
  const first = repository.slice(0, Math.max(slash, 0))
  return first.includes('.') || first === 'localhost'
}

function splitName(text: string): {name: string; tag: string | undefined} {
  const at = text.indexOf('@')
  if (at >= 0) return {name: text.slice(0, at), tag: undefined}
  const colon = text.lastIndexOf(':')
  return colon > text.lastIndexOf('/')
    ? {name: text.slice(0, colon), tag: text.slice(colon + 1)}
    : {name: text, tag: undefined}
}
