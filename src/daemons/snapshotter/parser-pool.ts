// Threads that parse layers: several layers of an image at once, while the main thread answers; and when such a thread
// ends, all the memory that it took goes with it.

import {existsSync} from 'node:fs'
import {dirname, join} from 'node:path'
import {Worker} from 'node:worker_threads'
import pLimit from 'p-limit'
import {CodedError} from '../../lib/errors/coded-error.ts'
import {raceAbort} from '../../lib/io/race-abort.ts'
import type {LayerParser, ParsedLayer, ParseTask} from '../../lib/layer/parse-layer.ts'
import type {ParseAnswer} from './parse-worker.ts'

/** Parses several layers at a time; `unavailable` for one that takes too long, `unsupported` for one beyond our memory. */
export interface ParserPool extends AsyncDisposable {
  readonly parse: LayerParser
  /** How many it parses at a time. */
  readonly threads: number
}

export interface ParserPoolOptions {
  /** How long a layer may be parsed once its turn has come, milliseconds; a minute by default. */
  readonly deadlineMs?: number
}

/** More than one on any machine, so that no layer keeps all others waiting. */
const THREADS = 2
/** A thread that has had nothing to do for this long ends, milliseconds. */
const IDLE_MS = 60_000
const DEADLINE_MS = 60_000
/** A layer that takes more is not read; small generations keep the peak of ordinary ones low. MiB. */
const LIMITS = {maxOldGenerationSizeMb: 3072, maxYoungGenerationSizeMb: 24}

export function createParserPool({deadlineMs = DEADLINE_MS}: ParserPoolOptions = {}): ParserPool {
  const limit = pLimit(THREADS)
  const idle: ParseThread[] = []
  const all = new Set<ParseThread>()
  const closing = new AbortController()

  function start(): ParseThread {
    const thread = startThread(() => {
      all.delete(thread)
      const index = idle.indexOf(thread)
      if (index >= 0) idle.splice(index, 1)
    })
    all.add(thread)
    return thread
  }

  async function parseNow(task: ParseTask, signal: AbortSignal): Promise<ParsedLayer> {
    signal.throwIfAborted()
    const late = new AbortController()
    const timer = setTimeout(() => late.abort(tooLong(task, deadlineMs)), deadlineMs).unref()
    // The one that was busy last: the others may end.
    const thread = idle.pop() ?? start()
    try {
      return await thread.parse(task, AbortSignal.any([signal, late.signal]))
    } finally {
      clearTimeout(timer)
      if (all.has(thread)) idle.push(thread)
    }
  }

  return {
    threads: THREADS,
    parse: async (task, {signal}) => {
      const given = signal ? AbortSignal.any([signal, closing.signal]) : closing.signal
      given.throwIfAborted()
      // Who gives up waits neither for a turn nor for a thread that ends.
      return await raceAbort(limit(parseNow, task, given), given)
    },
    [Symbol.asyncDispose]: async () => {
      const running = [...all]
      closing.abort(new CodedError('cancelled', 'Cannot parse a layer: the daemon is ending'))
      await Promise.all(running.map(thread => thread.end(closing.signal.reason)))
    },
  }
}

interface ParseThread {
  /** One task at a time. When `signal` aborts, the thread ends: nothing else interrupts what it is at. */
  parse(task: ParseTask, signal: AbortSignal): Promise<ParsedLayer>
  /** Ends the thread; the task that it is at, if any, fails with `reason`. */
  end(reason: unknown): Promise<void>
}

function startThread(onEnd: () => void): ParseThread {
  const worker = new Worker(findWorkerFile(), {execArgv: [], name: 'parser', resourceLimits: LIMITS})
  let idling: NodeJS.Timeout | undefined
  let current: PromiseWithResolvers<ParseAnswer> | undefined
  const fail = (reason: unknown) => {
    clearTimeout(idling)
    onEnd()
    current?.reject(reason)
  }
  const end = async (reason: unknown) => {
    fail(reason)
    await worker.terminate()
  }
  worker.unref()
  worker.on('message', (answer: ParseAnswer) => current?.resolve(answer))
  worker.on('error', cause => fail(failureOf(cause)))
  worker.on('exit', () => fail(failureOf(new Error('It ended'))))
  return {
    parse: async (task, signal) => {
      clearTimeout(idling)
      current = Promise.withResolvers()
      let ending: Promise<void> | undefined
      const abort = () => {
        ending = end(signal.reason)
      }
      signal.addEventListener('abort', abort, {once: true})
      try {
        worker.postMessage(task)
        const answer = await current.promise
        idling = setTimeout(end, IDLE_MS).unref()
        if ('parsed' in answer) return answer.parsed
        throw new CodedError(answer.failure.code, answer.failure.message)
      } finally {
        signal.removeEventListener('abort', abort)
        // Its memory is free when it has ended, not before.
        await ending
      }
    },
    end,
  }
}

function failureOf(cause: unknown): CodedError {
  if (cause instanceof Error && 'code' in cause && cause.code === 'ERR_WORKER_OUT_OF_MEMORY') {
    return new CodedError('unsupported', 'Cannot parse a layer: it takes too much memory', {cause})
  }
  return new CodedError('internal', 'Cannot parse a layer: its thread died', {cause})
}

function tooLong({where}: ParseTask, deadlineMs: number): CodedError {
  return new CodedError(
    'unavailable',
    `Cannot parse ${where}: it takes more than ${deadlineMs / 1000} seconds`,
  )
}

/** Beside this file in the sources, at the top of the bundle otherwise. */
function findWorkerFile(): string {
  const source = join(import.meta.dirname, 'parse-worker.ts')
  if (existsSync(source)) return source
  for (
    let directory = import.meta.dirname;
    directory !== dirname(directory);
    directory = dirname(directory)
  ) {
    const path = join(directory, 'parse-worker.js')
    if (existsSync(path)) return path
  }
  throw new CodedError('internal', 'Cannot parse layers: the program of the thread is missing')
}
