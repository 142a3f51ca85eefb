// How zstd:chunked layers of both dialects are read.

import type {Decompressor} from '../compression/layer-format.ts'
import {
  footerOf,
  parseStargzFooter,
  parseStorageFooter,
  STARGZ_FOOTER_SIZE,
  STORAGE_FOOTER_SIZE,
} from './footer.ts'
import {parseStoragePositions} from './positions.ts'

/** As stargz-snapshotter and nerdctl write it. */
export const STARGZ_ZSTD_CHUNKED: Decompressor = {
  name: 'zstd:chunked',
  memberKind: 'zstd',
  footerSize: STARGZ_FOOTER_SIZE,
  parseFooter: parseStargzFooter,
  unwrapToc: json => json,
}

/** As Podman and CRI-O read it: by annotations, and only where there are none by the footer. */
export const STORAGE_ZSTD_CHUNKED: Decompressor = {
  name: 'zstd:chunked for containers/storage',
  memberKind: 'zstd',
  footerSize: STORAGE_FOOTER_SIZE,
  parseFooter: parseStorageFooter,
  locateToc(annotations) {
    const positions = parseStoragePositions(annotations)
    return positions && {...footerOf(positions.toc), tocChecksum: positions.tocChecksum}
  },
  unwrapToc: json => json,
}

/** In the order in which they are tried; no footer can be taken for the other. */
export const ZSTD_DECOMPRESSORS: readonly Decompressor[] = [STORAGE_ZSTD_CHUNKED, STARGZ_ZSTD_CHUNKED]
