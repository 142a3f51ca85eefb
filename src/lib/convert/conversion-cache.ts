// Converting a layer again with the same options gives the same bytes: this port remembers what they were called.

import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import type {OrderedFiles} from './convert-layer.ts'

/** What one layer became. */
export interface ConversionFacts {
  readonly descriptor: Descriptor
  readonly diffId: Digest
  /** Absent for formats without an order. */
  readonly prioritized?: OrderedFiles
  /** The blob of a TOC that is kept outside of the layer. */
  readonly detachedToc?: {readonly digest: Digest; readonly size: number}
}

/** Facts by a key that covers everything the conversion depends on: a hex string. */
export interface ConversionCache {
  find(key: string): Promise<ConversionFacts | undefined>
  remember(key: string, facts: ConversionFacts): Promise<void>
}
