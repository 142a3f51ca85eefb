// The pieces of which a converted layer's tar is made, cut into units: a chunk of payload with the padding and headers
// that follow it. Members are made of whole units, so a chunk never spans two.
//
// Headers stand behind the chunk before them, as in the reference's layers, rather than in members of their own. Those
// would let every payload of a layer that is converted again move as it is (convert/reuse-members.ts), and not only those
// whose neighbours stay; but layers would be 0.2 to 0.3 % larger, with twice as many members to read, and with one file in
// twenty put first 86 % of the members move anyway.

import type {PieceLists} from '../compression/codec.ts'

/** Flat tables, because a layer may have a million units. */
export interface Units {
  readonly count: number
  /** Decompressed bytes of each. */
  readonly sizes: readonly number[]
  /** Payload bytes at the start of each; 0 for headers alone. */
  readonly chunkSizes: readonly number[]
  /** Units that must be the first of their stream. */
  readonly ownStream: ReadonlySet<number>
  /** All pieces as in `PieceLists`; unit `i` has those from `firstPieces[i]` to before `firstPieces[i + 1]`. */
  readonly pieceOffsets: readonly number[]
  readonly pieceSizes: readonly number[]
  readonly firstPieces: readonly number[]
  readonly literals: Uint8Array
}

export interface UnitBuilder {
  /** Starts a unit whose first `chunkSize` bytes are payload. */
  startUnit(chunkSize: number, options?: {readonly ownStream: boolean}): void
  /** Bytes of the source tar. */
  addSpooled(offset: number, size: number): void
  addLiteral(bytes: Uint8Array): void
  /** The index that the next started unit will have. */
  nextUnit(): number
  /** Bytes of the current unit that are not payload. */
  headerRun(): number
  finish(): Units
}

export function createUnitBuilder(): UnitBuilder {
  const sizes: number[] = []
  const chunkSizes: number[] = []
  const ownStream = new Set<number>()
  const pieceOffsets: number[] = []
  const pieceSizes: number[] = []
  const firstPieces: number[] = []
  const literals: Uint8Array[] = []
  let literalsSize = 0

  function startUnit(chunkSize: number, options?: {readonly ownStream: boolean}): void {
    if (options?.ownStream) ownStream.add(sizes.length)
    sizes.push(0)
    chunkSizes.push(chunkSize)
    firstPieces.push(pieceOffsets.length)
  }

  /** Adds a piece to the current unit, or makes the last one longer where it goes on from there. */
  function addPiece(offset: number, size: number): void {
    if (size === 0) return
    if (sizes.length === 0) startUnit(0)
    const last = pieceOffsets.length - 1
    const isContinued =
      last >= firstPieces.at(-1)! && continues(pieceOffsets[last]!, pieceSizes[last]!, offset)
    if (isContinued) {
      pieceSizes[last]! += size
    } else {
      pieceOffsets.push(offset)
      pieceSizes.push(size)
    }
    sizes[sizes.length - 1]! += size
  }

  function addLiteral(bytes: Uint8Array): void {
    addPiece(-1 - literalsSize, bytes.length)
    literals.push(bytes)
    literalsSize += bytes.length
  }

  function finish(): Units {
    firstPieces.push(pieceOffsets.length)
    const joined = new Uint8Array(literalsSize)
    let at = 0
    for (const literal of literals) {
      joined.set(literal, at)
      at += literal.length
    }
    return {
      count: sizes.length,
      sizes,
      chunkSizes,
      ownStream,
      pieceOffsets,
      pieceSizes,
      firstPieces,
      literals: joined,
    }
  }

  return {
    startUnit,
    addSpooled: addPiece,
    addLiteral,
    nextUnit: () => sizes.length,
    headerRun: () => (sizes.at(-1) ?? 0) - (chunkSizes.at(-1) ?? 0),
    finish,
  }
}

/** Lists of whole units: list `i` joins the units from `bounds[i]` to before `bounds[i + 1]`. */
export function piecesOfUnits(units: Units, bounds: readonly number[]): PieceLists {
  const first = units.firstPieces[bounds[0]!]!
  const end = units.firstPieces[bounds.at(-1)!]!
  const counts = new Uint32Array(bounds.length - 1)
  for (let list = 0; list < counts.length; list++) {
    counts[list] = units.firstPieces[bounds[list + 1]!]! - units.firstPieces[bounds[list]!]!
  }
  return {
    literals: units.literals,
    offsets: Float64Array.from(units.pieceOffsets.slice(first, end)),
    sizes: Float64Array.from(units.pieceSizes.slice(first, end)),
    counts,
  }
}

/** One list per unit: the first `limit` bytes of its payload, or all. A payload is always within one piece. */
export function chunksOfUnits(
  units: Units,
  indexes: readonly number[],
  limit = Number.POSITIVE_INFINITY,
): PieceLists {
  return {
    literals: units.literals,
    offsets: Float64Array.from(indexes, unit => units.pieceOffsets[units.firstPieces[unit]!]!),
    sizes: Float64Array.from(indexes, unit => Math.min(limit, units.chunkSizes[unit]!)),
    counts: new Uint32Array(indexes.length).fill(1),
  }
}

/** Whether a piece at `next` goes on where the piece of `size` bytes at `offset` ends. */
function continues(offset: number, size: number, next: number): boolean {
  return offset < 0 ? next < 0 && -1 - offset + size === -1 - next : next === offset + size
}
