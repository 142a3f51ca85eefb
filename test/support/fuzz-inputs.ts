// Inputs of native/fuzz: a byte that says how a layer is opened (native/fuzz/fuzz-open-layer.c), and its TOC.

import {digestOf} from '../../src/lib/blob/sha256.ts'
import {GZIP_DECOMPRESSORS} from '../../src/lib/estargz/decompressor.ts'
import {encodeFooter} from '../../src/lib/estargz/footer.ts'
import {readFooter} from '../../src/lib/estargz/open-layer.ts'
import type {ParseTask} from '../../src/lib/layer/parse-layer.ts'
import {ZSTD_DECOMPRESSORS} from '../../src/lib/zstdchunked/decompressor.ts'
import {encodeStargzFooter} from '../../src/lib/zstdchunked/footer.ts'
import {encodeSkippableHeader, SKIPPABLE_HEADER_SIZE} from '../../src/lib/zstdchunked/skippable-frame.ts'
import {LAZY_FORMATS, openBuilt} from '../conformance/formats.ts'
import {randomLayer} from '../conformance/random-tree.ts'
import {taskOfToc} from './both-parsers.ts'
import {HOSTILE_TOCS} from './hostile-tocs.ts'
import {memoryBlob} from './memory-content.ts'
import {randomToc} from './random-toc.ts'

/** Larger ones are mutated too rarely in places that matter. */
const MAX_SIZE = 4096
/** Whose tree has some of everything, and is small. */
const SEED = 11

const WRAPPINGS = {json: 0, gzip: 1, zstd: 2} as const
const VERIFIED = 4
const WITH_IMAGE = 8
/** Where the members end: fuzz-open-layer.c has the same table. */
const ENDS = [0, 1, 100, 1000, 10_000, 100_000, 1 << 20, 2 ** 40]
const endingAt = (end: number) => ENDS.indexOf(end) << 4

/** The TOC of a layer in every format, as our writer makes it, and random ones: by name, what is in native/fuzz/corpus. */
export async function corpusInputs(): Promise<Map<string, Uint8Array>> {
  const inputs = new Map<string, Uint8Array>()
  for (const format of LAZY_FORMATS) {
    const name = format.name.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-')
    const {tar, prioritizedPaths} = randomLayer(SEED)
    const built = await format.build(tar, prioritizedPaths)
    const blob = memoryBlob(built.bytes)
    const decompressors = [...GZIP_DECOMPRESSORS, ...ZSTD_DECOMPRESSORS]
    const {decompressor, tocOffset, tocEnd} = await readFooter(blob, {where: name, decompressors})
    if (tocOffset === undefined) {
      inputs.set(name, inputOf('json', built.externalToc!, endingAt(1 << 20) | VERIFIED))
    } else {
      const wrapped = built.bytes.subarray(tocOffset, tocEnd)
      inputs.set(name, inputOf(decompressor.memberKind, wrapped, endingAt(1 << 20)))
      const {entries, version} = (await openBuilt(built)).toc
      inputs.set(
        `${name}-unwrapped`,
        inputOf('json', Buffer.from(JSON.stringify({version, entries})), endingAt(1 << 20) | VERIFIED),
      )
    }
  }
  for (let seed = 0; seed < 12; seed++)
    inputs.set(`random-${seed}`, inputOf('json', randomToc(seed), endingAt(10_000)))
  return inputs
}

/** The hostile TOCs that are small. */
export function hostileInputs(): Map<string, Uint8Array> {
  const small = HOSTILE_TOCS.filter(([, toc]) => toc.length <= MAX_SIZE)
  return new Map(
    small.map(([, toc], index) => [`hostile-${index}`, inputOf('json', Buffer.from(toc), endingAt(1000))]),
  )
}

function inputOf(wrapping: keyof typeof WRAPPINGS, toc: Uint8Array, options: number): Uint8Array {
  return Buffer.concat([Buffer.of(WRAPPINGS[wrapping] | WITH_IMAGE | options), toc])
}

/** The layer that an input describes, for parsers that begin with a blob's end. */
export function taskOfInput(input: Uint8Array, where: string): ParseTask {
  const options = input[0] ?? 0
  const toc = input.subarray(1)
  const end = ENDS[(options >> 4) & 7]!
  const wrapping = (options & 3) % 3
  const wantsImage = (options & WITH_IMAGE) !== 0
  const tocDigest = options & VERIFIED ? digestOf(toc) : undefined
  if (wrapping === WRAPPINGS.json) return taskOfToc(toc, end, {where, wantsImage, tocDigest})
  const head = Buffer.alloc(Math.min(end, 64))
  const footer =
    wrapping === WRAPPINGS.gzip
      ? encodeFooter(end)
      : encodeStargzFooter({offset: end + SKIPPABLE_HEADER_SIZE, size: toc.length, rawSize: 0})
  const header = wrapping === WRAPPINGS.gzip ? Buffer.alloc(0) : encodeSkippableHeader(toc.length)
  const tail = Buffer.concat([head, header, toc, footer])
  const blobSize = end + tail.length - head.length
  return {where, blobSize, tail, externalToc: undefined, tocDigest, wantsImage}
}
