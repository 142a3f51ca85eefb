// The TOC of a zstd:chunked layer: that of eStargz with what Podman asks for besides. One TOC serves readers of both
// dialects, because each passes over the fields that it does not know.
//
// What differs: no white space; every time exactly, also that of the epoch, and device numbers of all entries, because
// Podman compares both with the tar's; where each file's frames end; the digest of the tar-split.

import type {LayerToWrite} from '../compression/layer-format.ts'
import {formatTime, type PlacedUnits, tocOfPlan} from '../estargz/toc-of-plan.ts'
import type {Digest} from '../oci/digest.ts'

export interface ZstdTocOptions {
  /** Where in the blob the members of files end. */
  readonly dataSize: number
  /** Of the tar-split as compressed. */
  readonly tarSplitDigest: Digest
}

/** The TOC's JSON, in pieces. */
export function* zstdTocTexts(
  {plan, chunkSize}: Pick<LayerToWrite, 'plan' | 'chunkSize'>,
  placed: PlacedUnits,
  {dataSize, tarSplitDigest}: ZstdTocOptions,
): Generator<string> {
  yield '{"version":1,"entries":['
  let separator = ''
  for (const entry of entriesOf()) {
    yield separator + JSON.stringify(withoutZeros(entry))
    separator = ','
  }
  yield `],"tarSplitDigest":"${tarSplitDigest}"}`

  function* entriesOf(): Generator<object> {
    const entries = tocOfPlan(plan, chunkSize, placed)[Symbol.iterator]()
    for (const {entry, firstUnit, unitCount} of plan.entries) {
      const lastUnit = firstUnit + unitCount - 1
      for (let chunk = 0; chunk < Math.max(1, unitCount); chunk++) {
        const base = entries.next().value!
        const endOffset = unitCount > 0 && chunk === unitCount - 1 ? endOf(lastUnit) : 0
        const {accessTime, changeTime, devMajor, devMinor} = entry
        yield chunk > 0
          ? {...base, endOffset}
          : {
              ...base,
              modtime: formatTime({seconds: entry.mtimeSeconds, nanoseconds: entry.mtimeNanoseconds}),
              accesstime: accessTime && formatTime(accessTime),
              changetime: changeTime && formatTime(changeTime),
              devMajor,
              devMinor,
              endOffset,
            }
      }
    }
  }

  /** Every unit is a frame of its own. */
  function endOf(unit: number): number {
    return placed.offsets[unit + 1] ?? dataSize
  }
}

/** As Go leaves out what is zero or empty; every entry has a name and a type. */
function withoutZeros(entry: object): object {
  return Object.fromEntries(Object.entries(entry).filter(([key, value]) => value || key === 'name'))
}
