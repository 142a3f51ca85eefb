// An archive of images that is open, whichever of the two formats it is in.

import type {ContentStore} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'

/** One image of an archive. */
export interface ArchivedImage {
  /** The names that the archive gives it, as written there: full names, or bare tags in some OCI archives. */
  readonly names: readonly string[]
  /** The descriptor as the archive has it, with the annotations that hold its names. */
  readonly target: Descriptor
}

/** An open archive; the opener disposes it. */
export interface ImageArchive extends AsyncDisposable {
  readonly format: 'oci' | 'docker'
  readonly images: readonly ArchivedImage[]
  readonly content: ContentStore
}
