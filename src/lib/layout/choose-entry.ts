// Which image of a layout is meant.

import {CodedError} from '../errors/coded-error.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {findEntry, nameOfEntry, plainTarget} from './image-entries.ts'

/**
 * The root descriptor of the entry that `tag` names, or of the only one. Throws `not-found`, and `invalid-argument`
 * when there are several to choose from.
 */
export function chooseEntry(
  entries: readonly Descriptor[],
  tag: string | undefined,
  where: string,
): Descriptor {
  const found = tag === undefined ? entries[0] : findEntry(entries, tag)
  const names = entries.map(entry => nameOfEntry(entry) ?? entry.digest).slice(0, 10)
  if (tag === undefined && entries.length > 1) {
    throw new CodedError(
      'invalid-argument',
      `Cannot choose an image of ${where}: it holds ${entries.length} (${names.join(', ')}); name one`,
    )
  }
  if (!found) {
    const hint = names.length > 0 ? `; it holds ${names.join(', ')}` : '; it holds none'
    throw new CodedError('not-found', `Cannot find an image for ${where}${hint}`)
  }
  return plainTarget(found)
}
