// Parses layers in compiled code (native/layer), on the thread pool: from the TOC's bytes to image and map without an object
// for any file. `createLayerParser` does the same in JavaScript, and says in tests what is right.

import pLimit from 'p-limit'
import type {Decompressor} from '../compression/layer-format.ts'
import {CodedError, type ErrorCode} from '../errors/coded-error.ts'
import {readFooter, readWrappedToc, requireExternalToc, unwrapToc} from '../estargz/open-layer.ts'
import {raceAbort} from '../io/race-abort.ts'
import {type NativeLayer, requireAddon} from '../native/addon.ts'
import {type Digest, hexOf} from '../oci/digest.ts'
import type {ChunkMap} from './chunk-map.ts'
import {blobOfTask, type LayerParser, type ParsedLayer, type ParseTask} from './parse-layer.ts'

export interface NativeParserOptions {
  readonly decompressors: readonly Decompressor[]
  /** How long a layer may be parsed once its turn has come, milliseconds; a minute by default. */
  readonly deadlineMs?: number
}

/** Parses several layers at a time; `unavailable` for one that takes too long, `unsupported` for one beyond our memory. */
export interface NativeParser extends AsyncDisposable {
  readonly parse: LayerParser
}

/** More than one, so that no layer keeps all others waiting; not all threads of the pool, which have other work. */
const AT_ONCE = 2
const DEADLINE_MS = 60_000

/** How a TOC is wrapped, and what comes of it: native/layer/open-layer.h. */
const WRAPPINGS = {json: 0, gzip: 1, zstd: 2} as const
const STATUS = {done: 0, corrupt: 1, unsupported: 2, aborted: 3, wrappedOtherwise: 4, noMemory: 5} as const

/** Throws `unsupported` where the native part is not built. */
export function createNativeParser({
  decompressors,
  deadlineMs = DEADLINE_MS,
}: NativeParserOptions): NativeParser {
  const {openLayer} = requireAddon()
  const limit = pLimit(AT_ONCE)
  const closing = new AbortController()
  const running = new Set<Promise<unknown>>()

  async function parseNow(task: ParseTask, signal: AbortSignal): Promise<ParsedLayer> {
    signal.throwIfAborted()
    const late = new AbortController()
    const timer = setTimeout(() => late.abort(tooLong(task, deadlineMs)), deadlineMs).unref()
    try {
      return await parse(task, {decompressors, openLayer, signal: AbortSignal.any([signal, late.signal])})
    } finally {
      clearTimeout(timer)
    }
  }

  return {
    parse: async (task, {signal}) => {
      const given = signal ? AbortSignal.any([signal, closing.signal]) : closing.signal
      given.throwIfAborted()
      const parsed = limit(parseNow, task, given)
      running.add(parsed)
      const done = () => running.delete(parsed)
      parsed.then(done, done)
      // Who gives up waits neither for a turn nor for a thread.
      return await raceAbort(parsed, given)
    },
    [Symbol.asyncDispose]: async () => {
      closing.abort(new CodedError('cancelled', 'Cannot parse a layer: the daemon is ending'))
      await Promise.allSettled(running)
    },
  }
}

interface ParseOptions {
  readonly decompressors: readonly Decompressor[]
  readonly openLayer: ReturnType<typeof requireAddon>['openLayer']
  readonly signal: AbortSignal
}

async function parse(task: ParseTask, options: ParseOptions): Promise<ParsedLayer> {
  const {where, tocDigest} = task
  const {decompressors, openLayer, signal} = options
  const blob = blobOfTask(task)
  const footer = await readFooter(blob, {where, decompressors})
  const {decompressor, tocOffset, tocEnd} = footer
  const aborted = new Uint8Array(1)
  const abort = () => void (aborted[0] = 1)
  const open = (wrapping: keyof typeof WRAPPINGS, toc: Uint8Array) =>
    openLayer(
      Buffer.from(where),
      WRAPPINGS[wrapping],
      toc,
      tocDigest && hashOf(tocDigest),
      footer.dataEnd,
      task.wantsImage,
      aborted,
    )
  signal.addEventListener('abort', abort, {once: true})
  try {
    let layer: NativeLayer
    if (tocOffset === undefined) {
      layer = await open('json', requireExternalToc(task))
    } else {
      const wrapped = await readWrappedToc(blob, {tocOffset, tocEnd}, {where})
      layer = await open(decompressor.memberKind, wrapped)
      if (layer.status === STATUS.wrappedOtherwise) {
        signal.throwIfAborted()
        layer = await open('json', await unwrapToc(decompressor, wrapped, `the TOC of ${where}`))
      }
    }
    signal.throwIfAborted()
    return parsedLayer(layer, decompressor)
  } finally {
    signal.removeEventListener('abort', abort)
  }
}

function parsedLayer(layer: NativeLayer, {name: format, memberKind}: Decompressor): ParsedLayer {
  if (layer.status !== STATUS.done) throw failureOf(layer)
  const {status: _, message: __, prefetchSize, image, hashes, ...map} = layer
  return {
    format,
    memberKind,
    map: {...map, hashes} satisfies ChunkMap,
    prefetchSize: prefetchSize < 0 ? undefined : prefetchSize,
    image,
  }
}

const CODES: Readonly<Record<number, ErrorCode>> = {
  [STATUS.corrupt]: 'corrupt',
  [STATUS.unsupported]: 'unsupported',
  [STATUS.noMemory]: 'unsupported',
}

function failureOf({status, message}: NativeLayer): CodedError {
  const problem = status === STATUS.noMemory ? 'it takes too much memory' : `its status is ${status}`
  return new CodedError(CODES[status] ?? 'internal', message ?? `Cannot parse a layer: ${problem}`)
}

function hashOf(digest: Digest): Uint8Array {
  return Buffer.from(hexOf(digest), 'hex')
}

function tooLong({where}: ParseTask, deadlineMs: number): CodedError {
  return new CodedError(
    'unavailable',
    `Cannot parse ${where}: it takes more than ${deadlineMs / 1000} seconds`,
  )
}
