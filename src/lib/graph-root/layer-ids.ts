// How containers/storage and Podman name layers: by what they stack up to, so that the same layers of two images are one.

import {createHash} from 'node:crypto'
import {type Digest, hexOf} from '../oci/digest.ts'

/** Ids of layers, bottom first: the DiffID, then the SHA-256 of the id below, `+`, and the DiffID. */
export function layerIdsOf(diffIds: readonly Digest[]): string[] {
  const ids: string[] = []
  for (const diffId of diffIds) {
    const below = ids.at(-1)
    const hex = hexOf(diffId)
    ids.push(below === undefined ? hex : createHash('sha256').update(`${below}+${hex}`).digest('hex'))
  }
  return ids
}

/** The name of a layer in mount options, which have no room for ids: 26 letters and digits, the same for the same layer. */
export function shortNameOf(root: string, id: string): string {
  const digest = createHash('sha256').update(`${root} ${id}`).digest()
  return [...digest.subarray(0, 26)].map(byte => ALPHABET[byte % ALPHABET.length]).join('')
}

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'
