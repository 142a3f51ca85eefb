// A text too long for memory: the TOC of a layer with hundreds of thousands of files has a hundred MB.

import {encodeTexts} from '../io/utf8-buffer.ts'
import {type Digest, digestFromHash} from '../oci/digest.ts'
import type {BulkCodec, Spool, SpoolWriter} from './codec.ts'
import {joinPieces} from './joined-pieces.ts'

export interface SpooledText {
  readonly spool: Spool
  /** Of its UTF-8. */
  readonly digest: Digest
  /** Bytes. */
  readonly size: number
}

/** Writes the UTF-8 of all texts, one after the other, to `writer`, and hashes it. */
export async function spoolTexts(
  texts: Iterable<string>,
  writer: SpoolWriter,
  codec: BulkCodec,
): Promise<SpooledText> {
  for (const bytes of encodeTexts(texts)) await writer.write(bytes)
  const spool = await writer.finish()
  const hash = await codec.hashPieces(spool, joinPieces([spool]).pieces)
  return {spool, digest: digestFromHash(hash), size: spool.size}
}
