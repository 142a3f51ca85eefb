// How zstd:chunked layers of both dialects are read: by annotations, and where there are none by the footer.

import type {Decompressor, Footer} from '../compression/layer-format.ts'
import {
  footerOf,
  PODMAN_FOOTER_SIZE,
  parsePodmanFooter,
  parseStargzFooter,
  STARGZ_FOOTER_SIZE,
} from './footer.ts'
import {type Positions, parseOldPositions, parsePositions} from './positions.ts'

/** As Podman 5 writes it. */
export const PODMAN_ZSTD_CHUNKED: Decompressor = {
  name: 'zstd:chunked',
  memberKind: 'zstd',
  footerSize: PODMAN_FOOTER_SIZE,
  parseFooter: parsePodmanFooter,
  locateToc: annotations => located(parsePositions(annotations)),
  unwrapToc: json => json,
}

/** As Podman 4, stargz-snapshotter and nerdctl write it, and we do. */
export const STARGZ_ZSTD_CHUNKED: Decompressor = {
  name: 'zstd:chunked',
  memberKind: 'zstd',
  footerSize: STARGZ_FOOTER_SIZE,
  parseFooter: parseStargzFooter,
  locateToc: annotations => located(parseOldPositions(annotations)),
  unwrapToc: json => json,
}

/** In the order in which they are tried; no footer can be taken for the other. */
export const ZSTD_DECOMPRESSORS: readonly Decompressor[] = [PODMAN_ZSTD_CHUNKED, STARGZ_ZSTD_CHUNKED]

function located(positions: Positions | undefined): Footer | undefined {
  return positions && {...footerOf(positions.toc), tocChecksum: positions.tocChecksum}
}
