// Content identifiers of IPFS (CIDs): what is at one cannot be anything else, as far as the bytes themselves can tell.

import {CID} from 'multiformats/cid'
import {digestOf} from '../blob/sha256.ts'
import {CodedError} from '../errors/coded-error.ts'
import {digestFromHash} from '../oci/digest.ts'

/** Longer texts are no CIDs; those of SHA-256 have 59 characters and fewer. */
const MAX_TEXT = 128
/** Codes of the multicodec table. */
const RAW = 0x55
const DAG_PB = 0x70
const SHA2_256 = 0x12

/** A CID as version 1 in lower case, which is what images are named by. Throws `invalid-argument`. */
export function parseCid(text: string): string {
  const cid = decode(text)
  if (cid) return cid.toV1().toString()
  throw new CodedError(
    'invalid-argument',
    `Cannot use ${JSON.stringify(text.slice(0, MAX_TEXT))}: it is no CID of IPFS`,
  )
}

/** Whether a text is a CID, and so the name of no image of a registry. */
export function isCid(text: string): boolean {
  return decode(text) !== undefined
}

/**
 * Throws `corrupt` unless `bytes` are what the CID stands for, whatever node they came from; `unsupported` for one that
 * cannot tell: of another hash than SHA-256, or of a file in several blocks.
 */
export function verifyCid(text: string, bytes: Uint8Array): void {
  const cid = decode(text)
  const isKnown = cid && cid.multihash.code === SHA2_256 && (cid.code === RAW || cid.code === DAG_PB)
  if (!isKnown) {
    throw new CodedError(
      'unsupported',
      `Cannot verify what is at "${text}": its CID is not of a file, by SHA-256`,
    )
  }
  const block = cid.code === RAW ? bytes : fileNode(bytes)
  if (digestOf(block) === digestFromHash(cid.multihash.digest)) return
  throw new CodedError(
    'corrupt',
    `Cannot use what the IPFS node gives for "${text}": it is not what the CID stands for`,
  )
}

function decode(text: string): CID | undefined {
  if (!/^[A-Za-z0-9]+$/.test(text) || text.length < 46 || text.length > MAX_TEXT) return undefined
  try {
    return CID.parse(text)
  } catch {
    return undefined
  }
}

/** The one block of a small file (dag-pb's PBNode, field 1, with UnixFS's Data: type File, data, size). */
function fileNode(bytes: Uint8Array): Uint8Array {
  const size = varint(bytes.length)
  const file = Buffer.concat([Buffer.from([0x08, 2, 0x12]), size, bytes, Buffer.from([0x18]), size])
  return Buffer.concat([Buffer.from([0x0a]), varint(file.length), file])
}

function varint(value: number): Uint8Array {
  const bytes: number[] = []
  let rest = value
  for (; rest > 0x7f; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 0x80)
  return Uint8Array.from([...bytes, rest])
}
