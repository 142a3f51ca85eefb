// Checks a layer's tar-split: that it is the one which the TOC vouches for, and that it describes the layer's tar.

import {decompressStream} from '../blob/decompress.ts'
import {createDigester} from '../blob/sha256.ts'
import {CodedError, describeError, hasCode} from '../errors/coded-error.ts'
import type {Finding} from '../estargz/finding.ts'
import {encodeBase64} from '../io/base64.ts'
import {encodeByteText} from '../io/byte-text.ts'
import type {BlobSource, CallOptions} from '../oci/content-store.ts'
import {isRecord} from '../oci/descriptor.ts'
import type {TarEntry} from '../tar/tar-entry.ts'
import type {FramePosition} from './footer.ts'

/** What the tar-split must fit. */
export interface ExpectedTarSplit extends CallOptions {
  readonly position: FramePosition
  /** What the TOC says; older layers have none, and their tar-split is not believed by anybody. */
  readonly digest: string | undefined
  /** The tar, and its size; undefined when it could not be read as a whole. */
  readonly tar: {readonly entries: readonly TarEntry[]; readonly size: number} | undefined
}

/** Characters of a line; a header, which is most of it, has 1 MiB at most. */
const MAX_LINE_SIZE = 4 << 20
/** Bytes read at once. */
const READ_SIZE = 1 << 20

/** What is wrong with it; checksums of contents are not looked at, because files have better ones. */
export async function checkTarSplit(
  blob: BlobSource,
  expected: ExpectedTarSplit,
): Promise<readonly Finding[]> {
  const {position, tar} = expected
  try {
    if (position.offset + position.size > blob.size) throw wrong('its place is outside of the layer')
    const digester = createDigester()
    const compressed = readThrough(blob, expected, bytes => digester.update(bytes))
    const described = await describe(decompressStream(compressed, 'the tar-split', expected), position)
    if (expected.digest !== undefined && digester.digest() !== expected.digest) {
      throw wrong('it does not have the digest that the TOC gives')
    }
    if (tar) compare(described, tar)
    return []
  } catch (error) {
    if (!hasCode(error, 'corrupt')) throw error
    return [{kind: 'tar-split', message: describeError(error)}]
  }
}

async function* readThrough(
  blob: BlobSource,
  {position, signal}: ExpectedTarSplit,
  onBytes: (bytes: Uint8Array) => void,
): AsyncGenerator<Uint8Array> {
  const end = position.offset + position.size
  for (let offset = position.offset; offset < end; offset += READ_SIZE) {
    const bytes = await blob.read(offset, Math.min(READ_SIZE, end - offset), {signal})
    onBytes(bytes)
    yield bytes
  }
}

/** The tar that a tar-split describes. */
interface DescribedTar {
  /** Each file's name, in base64, and size. */
  readonly files: readonly {readonly name: string; readonly size: number}[]
  readonly size: number
}

async function describe(raw: AsyncIterable<Uint8Array>, {rawSize}: FramePosition): Promise<DescribedTar> {
  const files: {name: string; size: number}[] = []
  let size = 0
  let position = 0
  for await (const line of linesOf(raw, rawSize)) {
    const entry = parseLine(line)
    if (entry.position !== position++) throw wrong(`line ${position} is not in its place`)
    if (entry.type === 2 && typeof entry.payload === 'string') {
      size += Buffer.byteLength(entry.payload, 'base64')
    } else if (entry.type === 1) {
      const fileSize = entry.size ?? 0
      const name = typeof entry.name === 'string' ? encodeBase64(encodeByteText(entry.name)) : entry.name_raw
      if (typeof name !== 'string' || !Number.isSafeInteger(fileSize))
        throw wrong(`line ${position} is no file`)
      files.push({name, size: fileSize as number})
      size += fileSize as number
    } else {
      throw wrong(`line ${position} is neither a segment nor a file`)
    }
  }
  return {files, size}
}

function parseLine(line: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(line)
    if (isRecord(value)) return value
  } catch {
    // Said below.
  }
  throw wrong('a line is no JSON object')
}

/** Lines of exactly `rawSize` bytes, each ended by a newline. */
async function* linesOf(raw: AsyncIterable<Uint8Array>, rawSize: number): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let rest = ''
  let size = 0
  for await (const bytes of raw) {
    size += bytes.length
    if (size > rawSize) throw wrong(`it has more than ${rawSize} bytes`)
    const lines = (rest + decoder.decode(bytes, {stream: true})).split('\n')
    rest = lines.pop()!
    if (rest.length > MAX_LINE_SIZE) throw wrong('a line is too long')
    yield* lines
  }
  if (size !== rawSize || rest !== '') throw wrong('it is cut short')
}

function compare({files, size}: DescribedTar, tar: NonNullable<ExpectedTarSplit['tar']>): void {
  for (const [index, entry] of tar.entries.entries()) {
    const file = files[index]
    const name = encodeBase64(encodeByteText(entry.name))
    if (file?.name !== name || file.size !== entry.size) {
      throw wrong(`it does not have ${JSON.stringify(entry.name)} where the tar has it`)
    }
  }
  if (files.length > tar.entries.length) throw wrong('it has files that the tar has not')
  if (size !== tar.size) throw wrong(`it makes a tar of ${size} bytes, not of ${tar.size}`)
}

function wrong(problem: string): CodedError {
  return new CodedError('corrupt', `Cannot use the tar-split: ${problem}`)
}
