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

function serve(port: NonNullable<typeof parentPort>): void {
  const parse = createLayerParser(LAYER_FORMATS)
  port.on('message', async (task: ParseTask) => {
    try {
      const parsed = await parse(task, {})
      port.postMessage({parsed} satisfies ParseAnswer, buffersOf(parsed))
    } catch (error) {
      port.postMessage({failure: {code: codeOf(error), message: messageOf(error)}} satisfies ParseAnswer)
    }
  })
}

/** What is handed over instead of being copied. */
function buffersOf({map, image}: ParsedLayer): ArrayBuffer[] {
  const arrays = [...Object.values(map), image].filter(value => ArrayBuffer.isView(value))
  return arrays.map(({buffer}) => buffer as ArrayBuffer)
}
