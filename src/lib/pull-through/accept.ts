// What a client can read, by its Accept header.

import {OCI_INDEX, OCI_MANIFEST} from '../oci/media-type.ts'

/** Whether the client reads OCI images, which converted ones are: Docker's media types cannot say how to read layers lazily. */
export function acceptsOci(accept: string | undefined): boolean {
  if (accept === undefined || accept.trim() === '') return true
  const types = accept.split(',').map(text => (text.split(';')[0] ?? '').trim().toLowerCase())
  const anything = types.some(type => type === '*/*' || type === 'application/*')
  return anything || (types.includes(OCI_MANIFEST) && types.includes(OCI_INDEX))
}
