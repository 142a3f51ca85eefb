// The names that imported images get.

import {formatReference, parseReference, withDefaultTag} from '../oci/reference.ts'
import type {ArchivedImage} from './image-archive.ts'

/**
 * Full names for an image of an archive. A bare tag, which is all that many OCI archives hold, needs `baseName`
 * (`ctr images import --base-name`), or else `fallbackName`, such as the archive's file name.
 */
export function importedNames(
  {names, target}: ArchivedImage,
  {baseName, fallbackName}: {readonly baseName?: string | undefined; readonly fallbackName: string},
): readonly string[] {
  const base = baseName ?? fallbackName
  if (names.length === 0) return [canonical(`${base}@${target.digest}`)]
  return names.map(name => (/[/:]/.test(name) ? canonical(name) : canonical(`${base}:${name}`)))
}

function canonical(name: string): string {
  return formatReference(withDefaultTag(parseReference(name)))
}
