// One string of bytes, of which some are in memory and some in a spool: what a single member is made of.

import type {BulkCodec, MemberKind, PieceLists, Spool} from './codec.ts'

export interface JoinedPieces {
  readonly spool: Spool
  /** One list. */
  readonly pieces: PieceLists
  /** Of all pieces together. */
  readonly size: number
}

/** Joins bytes and whole spools, of which there may be one. */
export function joinPieces(parts: readonly (Uint8Array | Spool)[]): JoinedPieces {
  const literals = parts.filter(part => part instanceof Uint8Array)
  const sizes = parts.map(part => (part instanceof Uint8Array ? part.length : part.size))
  let literalsAt = 0
  const offsets = parts.map(part => {
    if (!(part instanceof Uint8Array)) return 0
    literalsAt += part.length
    return -1 - (literalsAt - part.length)
  })
  return {
    spool: parts.find(part => 'storage' in part) ?? NO_SPOOL,
    pieces: {
      // What is one piece needs no copy.
      literals: literals.length === 1 ? literals[0]! : Buffer.concat(literals),
      offsets: Float64Array.from(offsets),
      sizes: Float64Array.from(sizes),
      counts: Uint32Array.of(parts.length),
    },
    size: sizes.reduce((sum, size) => sum + size, 0),
  }
}

const NO_SPOOL: Spool = {size: 0, storage: new Uint8Array(0)}

/** One member of all pieces. */
export async function compressPieces(
  kind: MemberKind,
  level: number,
  {spool, pieces}: JoinedPieces,
  codec: BulkCodec,
): Promise<Uint8Array> {
  return (await codec.compressMembers(kind, level, spool, pieces)).bytes
}
