// The thread in which layers are parsed: see `parser-pool.ts`.

import {isMainThread, parentPort} from 'node:worker_threads'
import {codeOf, type ErrorCode, messageOf} from '../../lib/errors/coded-error.ts'
import {createLayerParser, type ParsedLayer, type ParseTask} from '../../lib/layer/parse-layer.ts'
import {LAYER_FORMATS} from './layer-formats.ts'

/** What a thread answers to each `ParseTask`. */
export type ParseAnswer =
  | {readonly parsed: ParsedLayer}
  | {readonly failure: {readonly code: ErrorCode; readonly message: string}}

if (!isMainThread && parentPort) serve(parentPort)

/** A thread that has had nothing to do for this long gives its memory back, milliseconds. */
const QUIET_MS = 1_000

function serve(port: NonNullable<typeof parentPort>): void {
  const parse = createLayerParser(LAYER_FORMATS)
  let quiet: NodeJS.Timeout | undefined
  port.on('message', async (task: ParseTask) => {
    clearTimeout(quiet)
    try {
      const parsed = await parse(task, {})
      port.postMessage({parsed} satisfies ParseAnswer, buffersOf(parsed))
    } catch (error) {
      port.postMessage({failure: {code: codeOf(error), message: messageOf(error)}} satisfies ParseAnswer)
    }
    // As src/daemons/snapshotter/memory.ts does in the main thread.
    quiet = setTimeout(
      () => globalThis.gc?.({type: 'major', execution: 'sync', flavor: 'last-resort'}),
      QUIET_MS,
    )
  })
}

/** What is handed over instead of being copied. */
function buffersOf({map, image}: ParsedLayer): ArrayBuffer[] {
  const arrays = [...Object.values(map), image].filter(value => ArrayBuffer.isView(value))
  return arrays.map(({buffer}) => buffer as ArrayBuffer)
}
