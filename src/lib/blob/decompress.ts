// A compressed layer's stream as the tar it holds, with node:zlib: gzip of any number of members, zstd of any number of
// frames, or no compression at all. The bytes decide which it is.

import {Readable} from 'node:stream'
import {pipeline} from 'node:stream/promises'
import {createGunzip, createZstdDecompress, type Gunzip, type ZstdDecompress} from 'node:zlib'
import {CodedError, codeOf, messageOf} from '../errors/coded-error.ts'
import {splitZstdFrames} from '../io/zstd-frames.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {detectCompression, MAGIC_SIZE} from './detect-compression.ts'

/** zlib's output pieces, bytes: with its default of 16 KiB, inflating takes four times as long. */
const CHUNK_SIZE = 1024 * 1024

/**
 * Decompresses `chunks`; `where` names them in the `corrupt` error that damaged or truncated data throws, and the
 * `unsupported` one of a compression that layers do not have. Errors of the source pass unchanged. The consumer bounds
 * the total: compressed data can be a bomb.
 */
export async function* decompressStream(
  chunks: AsyncIterable<Uint8Array>,
  where: string,
  options: CallOptions = {},
): AsyncGenerator<Uint8Array> {
  const source = chunks[Symbol.asyncIterator]()
  try {
    const held = await readStart(source)
    const compression = detectCompression(held.length === 1 ? held[0]! : Buffer.concat(held))
    const whole = chain(held, source)
    if (compression === 'none') yield* whole
    else if (compression === 'gzip')
      yield* inflate(whole, createGunzip({chunkSize: CHUNK_SIZE}), where, options)
    else if (compression === 'zstd') {
      // node's zstd stops at the end of a frame within a chunk, so each chunk it gets holds parts of one frame only.
      const frames = splitZstdFrames(whole, where)
      yield* inflate(frames, createZstdDecompress({chunkSize: CHUNK_SIZE}), where, options)
    } else {
      throw new CodedError(
        'unsupported',
        `Cannot decompress ${where}: ${compression} is not supported, only gzip and zstd are`,
      )
    }
  } finally {
    await source.return?.()
  }
}

/** The first chunks, as many as tell the compression. */
async function readStart(source: AsyncIterator<Uint8Array>): Promise<Uint8Array[]> {
  const held: Uint8Array[] = []
  for (let size = 0; size < MAGIC_SIZE; ) {
    const next = await source.next()
    if (next.done) break
    held.push(next.value)
    size += next.value.length
  }
  return held
}

async function* chain(
  first: readonly Uint8Array[],
  rest: AsyncIterator<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  yield* first
  yield* {[Symbol.asyncIterator]: () => rest}
}

async function* inflate(
  input: AsyncIterable<Uint8Array>,
  zlib: Gunzip | ZstdDecompress,
  where: string,
  {signal}: CallOptions,
): AsyncGenerator<Uint8Array> {
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
