// Runs native/access-tracer.c and reads what it reports. Its protocol is described there.

import {spawn} from 'node:child_process'
import {once} from 'node:events'
import {CodedError} from '../errors/coded-error.ts'
import {decodeByteText} from '../io/byte-text.ts'
import {findNativeFile} from '../native/addon.ts'
import type {CallOptions} from '../oci/content-store.ts'

export interface Trace {
  /** Absolute paths in the container, each file once, in order of first access. */
  readonly paths: readonly string[]
  /** True when the kernel's queue overflowed: some accesses are missing. */
  readonly overflowed: boolean
}

/** A trace that is under way; dispose it if it is not finished. */
export interface AccessTracer extends AsyncDisposable {
  /** Ends the trace, and resolves to everything that happened before. */
  finish(): Promise<Trace>
}

/** How long the helper may take to set its mark, or to report what is left in its queue. */
const PATIENCE_MS = 30_000

/**
 * Starts to watch the file system mounted at `directory`; resolves when every later access will be seen. Throws
 * `failed-precondition` with the helper's words when it cannot watch, `unsupported` when it is not built.
 */
export async function startAccessTracer(directory: string, options: CallOptions = {}): Promise<AccessTracer> {
  const program = findNativeFile('access-tracer')
  if (program === undefined) {
    throw new CodedError(
      'unsupported',
      'Cannot trace file accesses: the helper is not built; run "make -C native"',
    )
  }
  const child = spawn(program, [directory], {stdio: ['pipe', 'pipe', 'pipe'], detached: true})
  const ended = once(child, 'close').catch(() => {})
  child.stdin.on('error', () => {})
  const stop = async () => {
    child.stdin.destroy()
    child.kill('SIGKILL')
    await ended
  }
  let said = ''
  child.stderr.on('data', bytes => {
    said = `${said}${bytes}`.slice(-2000)
  })
  const records = readRecords(child.stdout)
  const next = () => withPatience(records.next(), options.signal)
  try {
    const first = await next()
    if (first.done || first.value[0] !== READY) {
      // Its reason may still be on the way.
      await withPatience(ended, options.signal)
      throw new CodedError(
        'failed-precondition',
        `Cannot trace file accesses: ${said.trim() || 'the helper did not start'}`,
      )
    }
  } catch (error) {
    await stop()
    throw error
  }
  const trace = collect(records)
  trace.catch(() => {})
  return {
    finish: async () => {
      child.stdin.end()
      const result = await withPatience(trace, undefined)
      if (!result.complete) {
        throw new CodedError(
          'internal',
          `Cannot trace file accesses: the helper died: ${said.trim() || 'no reason given'}`,
        )
      }
      await ended
      return result
    },
    [Symbol.asyncDispose]: stop,
  }
}

/** First bytes of records. */
const READY = 'R'.charCodeAt(0)
const FILE = 'F'.charCodeAt(0)
const OVERFLOW = 'O'.charCodeAt(0)
const END = 'E'.charCodeAt(0)

async function collect(records: AsyncIterable<Uint8Array>): Promise<Trace & {readonly complete: boolean}> {
  const paths: string[] = []
  let overflowed = false
  let complete = false
  for await (const record of records) {
    if (record[0] === FILE) paths.push(decodeByteText(record.subarray(1)))
    else if (record[0] === OVERFLOW) overflowed = true
    else if (record[0] === END) complete = true
  }
  return {paths, overflowed, complete}
}

/** The records of a stream, without the NULs that end them. */
async function* readRecords(chunks: AsyncIterable<Buffer>): AsyncGenerator<Uint8Array> {
  let rest: Buffer = Buffer.alloc(0)
  for await (const chunk of chunks) {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    let start = 0
    for (let end = rest.indexOf(0); end >= 0; end = rest.indexOf(0, start)) {
      yield rest.subarray(start, end)
      start = end + 1
    }
    rest = rest.subarray(start)
  }
}

async function withPatience<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  const timeout = AbortSignal.timeout(PATIENCE_MS)
  const until = signal ? AbortSignal.any([signal, timeout]) : timeout
  return new Promise((resolve, reject) => {
    const onAbort = () => {
      reject(
        signal?.aborted
          ? signal.reason
          : new CodedError('unavailable', 'Cannot trace file accesses: the helper hangs'),
      )
    }
    if (until.aborted) onAbort()
    until.addEventListener('abort', onAbort, {once: true})
    work.then(resolve, reject).finally(() => until.removeEventListener('abort', onAbort))
  })
}
