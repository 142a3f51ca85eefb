// How much a layer may decompress to. A few kilobytes can stand for gigabytes, of zeros for one (lastlog of a large user
// id), and images with such layers run everywhere; so what is refused is what there is no room for, or what the caller says.

import {statfs} from 'node:fs/promises'
import {CodedError} from '../errors/coded-error.ts'
import {temporaryDirectoryError} from '../io/temporary-directory.ts'

export interface SizeLimit {
  /** Bytes; undefined for what there is room for in `directory`. */
  readonly maxSize?: number | undefined
  /** Where the bytes are kept. */
  readonly directory: string
  /** For messages. */
  readonly where: string
}

/** Up to here nobody asks for room. */
const ALWAYS = 16 << 20
/** Of the room in a file system, what a layer may take: others use it too. */
const SHARE = 0.9

/** Passes `chunks` on; throws `unsupported` when they are more than the caller's limit, `unavailable` when more than the room. */
export async function* limitSize(
  chunks: AsyncIterable<Uint8Array>,
  {maxSize, directory, where}: SizeLimit,
): AsyncGenerator<Uint8Array> {
  let limit = maxSize
  let size = 0
  for await (const chunk of chunks) {
    size += chunk.length
    if (limit === undefined && size > ALWAYS) limit = await roomIn(directory)
    if (limit !== undefined && size > limit) {
      throw maxSize === undefined
        ? tooLarge(
            'unavailable',
            where,
            `${limit} bytes, for which there is no room in ${JSON.stringify(directory)}`,
          )
        : tooLarge('unsupported', where, `${limit} bytes, the limit`)
    }
    yield chunk
  }
}

async function roomIn(directory: string): Promise<number> {
  const {bavail, bsize} = await statfs(directory).catch(cause => {
    throw temporaryDirectoryError(directory, cause)
  })
  return Math.floor(bavail * bsize * SHARE)
}

function tooLarge(code: 'unavailable' | 'unsupported', where: string, limit: string): CodedError {
  return new CodedError(
    code,
    `Cannot use ${where}: it decompresses to more than ${limit}; set TMPDIR to a larger disk, or allow more with --max-layer-size`,
  )
}
