// `--store podman`: the images that stargz-store shows to Podman, Buildah and CRI-O.

import {CodedError} from '../lib/errors/coded-error.ts'
import {
  addStoredImage,
  type ListedImage,
  listStoredImages,
  removeStoredImage,
  tellCredentials,
} from '../lib/layer-store-client/layer-store-client.ts'
import {formatReference, parseReference, withDefaultTag} from '../lib/oci/reference.ts'
import {parseUser} from '../lib/registry/keychain.ts'
import type {LazyPullReport} from './lazy-pulling.ts'
import {completeCredentials} from './password.ts'
import type {Session} from './session.ts'
import {formatTable} from './table.ts'
import {formatBytes} from './units.ts'

export interface PodmanPull {
  /** stargz-store's socket. */
  readonly address: string
  readonly platforms: readonly string[]
  /** Of the registry, `name:password`. */
  readonly creds: string | undefined
}

/** Has the store mount and show an image, and says which of its layers are not lazy. */
export async function pullIntoPodman(
  {signal, say}: Session,
  ref: string,
  {address, platforms, creds}: PodmanPull,
): Promise<LazyPullReport> {
  const [platform, another] = platforms
  if (another !== undefined) {
    throw new CodedError(
      'invalid-argument',
      'Cannot pull for several platforms into Podman: give one --platform',
    )
  }
  const reference = formatReference(withDefaultTag(parseReference(ref)))
  const complete = await completeCredentials(creds, signal)
  if (complete) {
    const credential = parseUser(complete)
    await tellCredentials(address, Buffer.from(JSON.stringify({[reference]: credential})), {signal})
  }
  const image = await addStoredImage(address, reference, {platform, signal})
  for (const [index, {digest, lazy, reason}] of image.layers.entries()) {
    if (!lazy) say(`layer ${index + 1}/${image.layers.length} ${digest.slice(0, 19)} is not lazy: ${reason}`)
  }
  return {
    name: reference,
    digest: image.digest,
    layers: image.layers.map(({digest, lazy, reason}) => ({
      digest,
      state: lazy ? 'mounted' : 'fetched',
      ...(reason === undefined ? {} : {reason}),
    })),
  }
}

/** Images whose name has one of `filters`, or all. */
export async function listInPodman(
  {signal}: Session,
  address: string,
  filters: readonly string[],
): Promise<readonly ListedImage[]> {
  const images = await listStoredImages(address, {signal})
  return images.filter(
    ({names}) => filters.length === 0 || filters.some(part => names.some(name => name.includes(part))),
  )
}

export function formatStoredImages(images: readonly ListedImage[]): string {
  const rows = images.map(({names, id, layers}) => [
    names.join(',') || '<none>',
    id.slice(0, 12),
    formatBytes(layers.reduce((sum, {size}) => sum + size, 0)),
    `${layers.filter(({lazy}) => lazy).length}/${layers.length}`,
  ])
  return formatTable(['REF', 'ID', 'SIZE', 'LAZY LAYERS'], rows)
}

/** Resolves to the names that the image had, or its id where it had none. */
export async function removeFromPodman(
  {signal}: Session,
  address: string,
  ref: string,
): Promise<readonly string[]> {
  const {names, id} = await removeStoredImage(address, ref, {signal})
  return names.length > 0 ? names : [id]
}
