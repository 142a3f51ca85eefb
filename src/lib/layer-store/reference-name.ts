// The name of an image in a layer store: its reference in base64 (containers/storage, drivers/overlay).

import {decodeBase64, encodeBase64} from '../io/base64.ts'
import {parseReference} from '../oci/reference.ts'

/** Longer names are no file names. */
const MAX_NAME = 255

export function encodeReferenceName(reference: string): string {
  return encodeBase64(Buffer.from(reference))
}

/** The reference in a name; undefined for a name that is none. */
export function parseReferenceName(name: string): string | undefined {
  const bytes = name.length <= MAX_NAME ? decodeBase64(name) : undefined
  const reference = bytes && Buffer.from(bytes).toString()
  if (reference === undefined || encodeReferenceName(reference) !== name) return undefined
  try {
    parseReference(reference)
    return reference
  } catch {
    return undefined
  }
}
