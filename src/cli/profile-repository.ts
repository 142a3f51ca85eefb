// Where the profiles of an image are: the repository that its name says.

import {CodedError} from '../lib/errors/coded-error.ts'
import type {ManifestNode} from '../lib/image/image-tree.ts'
import {parseReference, type Reference, withDefaultTag} from '../lib/oci/reference.ts'
import type {RecordEntry} from '../lib/record/record-file.ts'
import type {Repository} from '../lib/registry/repository.ts'
import {parseImageLocation} from '../lib/transport/image-location.ts'
import type {Session} from './session.ts'

export interface ProfileRepository {
  readonly repository: Repository
  /** With a tag or digest. */
  readonly reference: Reference
}

/** Opens it; nothing is read. Throws `invalid-argument` for an image that has no name in a registry. */
export async function openProfileRepository(
  session: Session,
  image: string,
  access: 'pull' | 'push',
): Promise<ProfileRepository> {
  const location = parseImageLocation(image)
  const name =
    'name' in location ? location.name : location.transport === 'docker' ? location.reference : undefined
  if (name === undefined) {
    throw new CodedError(
      'invalid-argument',
      `Cannot look for profiles of ${JSON.stringify(image)}: it has no name in a registry`,
    )
  }
  const reference = withDefaultTag(parseReference(name))
  const registry = await session.registry(access === 'push' ? 'target' : 'source', name)
  return {repository: registry.repository(reference, {access}), reference}
}

/** Finds the profiles of an image's manifests, by the name of the image. */
export async function findInRegistry(
  session: Session,
  image: string,
): Promise<(manifests: readonly ManifestNode[]) => Promise<readonly RecordEntry[]>> {
  const {repository} = await openProfileRepository(session, image, 'pull')
  const {pullProfiles} = await import('../lib/profile-exchange/profile-exchange.ts')
  return manifests => pullProfiles(repository, manifests, {signal: session.signal})
}
