// Threads that parse layers: several layers of an image at once, while the main thread answers; and when such a thread
// ends, all the memory that it took goes with it.

import {existsSync} from 'node:fs'
import {availableParallelism} from 'node:os'
import {dirname, join} from 'node:path'
import {Worker} from 'node:worker_threads'
import pLimit from 'p-limit'
import {CodedError} from '../../lib/errors/coded-error.ts'
import type {LayerParser, ParsedLayer, ParseTask} from '../../lib/layer/parse-layer.ts'
import type {ParseAnswer} from './parse-worker.ts'

export interface ParserPool extends AsyncDisposable {
  readonly parse: LayerParser
}

const MAX_THREADS = 3
/** A thread that has had nothing to do for this long ends, milliseconds. */
const IDLE_MS = 3_000
/** A TOC that takes more is not read; small generations keep the peak of ordinary ones low. MiB. */
const LIMITS = {maxOldGenerationSizeMb: 2048, maxYoungGenerationSizeMb: 24}

export function createParserPool(): ParserPool {
  const limit = pLimit(Math.min(MAX_THREADS, Math.max(1, availableParallelism() - 1)))
  const idle: ParseThread[] = []
  const all = new Set<ParseThread>()

  function start(): ParseThread {
    const thread = startThread(() => {
      all.delete(thread)
      const index = idle.indexOf(thread)
      if (index >= 0) idle.splice(index, 1)
    })
    all.add(thread)
    return thread
  }

  return {
    parse: task =>
      limit(async () => {
        // The one that was busy last: the others may end.
        const thread = idle.pop() ?? start()
        try {
          return await thread.parse(task)
        } finally {
          if (all.has(thread)) idle.push(thread)
        }
      }),
    [Symbol.asyncDispose]: async () => {
      await Promise.all([...all].map(thread => thread.end()))
    },
  }
}

interface ParseThread {
  /** One task at a time. */
  parse(task: ParseTask): Promise<ParsedLayer>
  end(): Promise<void>
}

function startThread(onEnd: () => void): ParseThread {
  const worker = new Worker(findWorkerFile(), {execArgv: [], name: 'parser', resourceLimits: LIMITS})
  let timer: NodeJS.Timeout | undefined
  let current: PromiseWithResolvers<ParseAnswer> | undefined
  const end = async () => {
    clearTimeout(timer)
    onEnd()
    await worker.terminate()
  }
  worker.unref()
  worker.on('message', (answer: ParseAnswer) => current?.resolve(answer))
  worker.on('error', cause => {
    onEnd()
    current?.reject(new CodedError('internal', 'Cannot parse a layer: its thread died', {cause}))
  })
  return {
    parse: async task => {
      clearTimeout(timer)
      current = Promise.withResolvers()
      worker.postMessage(task)
      const answer = await current.promise
      timer = setTimeout(end, IDLE_MS).unref()
      if ('parsed' in answer) return answer.parsed
      throw new CodedError(answer.failure.code, answer.failure.message)
    },
    end,
  }
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
