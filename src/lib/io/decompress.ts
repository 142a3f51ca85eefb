// A compressed layer's stream as the tar it holds, with node:zlib: gzip of any number of members, zstd of any number of
// frames.

import {Readable} from 'node:stream'
import {pipeline} from 'node:stream/promises'
import {createGunzip, createZstdDecompress} from 'node:zlib'
import {CodedError, codeOf, messageOf} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {LayerCompression} from '../oci/media-type.ts'
import {splitZstdFrames} from './zstd-frames.ts'

/** zlib's output pieces, bytes: with its default of 16 KiB, inflating takes four times as long. */
const CHUNK_SIZE = 1024 * 1024

/**
 * Decompresses `chunks`; `where` names them in the `corrupt` error that damaged or truncated data throws. Errors of the
 * source pass unchanged. The consumer bounds the total: compressed data can be a bomb.
 */
export async function* decompressStream(
  chunks: AsyncIterable<Uint8Array>,
  compression: LayerCompression,
  where: string,
  options: CallOptions = {},
): AsyncGenerator<Uint8Array> {
  if (compression === 'none') {
    yield* chunks
    return
  }
  const zlib =
    compression === 'gzip'
      ? createGunzip({chunkSize: CHUNK_SIZE})
      : createZstdDecompress({chunkSize: CHUNK_SIZE})
  // node's zstd stops at the end of a frame within a chunk, so each chunk it gets holds parts of one frame only.
  const input = compression === 'gzip' ? chunks : splitZstdFrames(chunks, where)
  const {signal} = options
  const flow = pipeline(Readable.from(input), zlib, signal ? {signal} : {})
  flow.catch(() => {})
  try {
    yield* zlib as AsyncIterable<Uint8Array>
    await flow
  } catch (cause) {
    signal?.throwIfAborted()
    throw isZlibError(cause)
      ? new CodedError('corrupt', `Cannot decompress ${where}: ${messageOf(cause)}`, {cause})
      : cause
  } finally {
    zlib.destroy()
    await flow.catch(() => {})
  }
}

function isZlibError(error: unknown): boolean {
  if (codeOf(error) !== 'internal' || error instanceof CodedError) return false
  const code = (error as NodeJS.ErrnoException).code ?? ''
  return (
    code.startsWith('Z_') ||
    code.startsWith('ZSTD_') ||
    code.startsWith('ERR_ZLIB') ||
    code === 'ERR_STREAM_PREMATURE_CLOSE'
  )
}
