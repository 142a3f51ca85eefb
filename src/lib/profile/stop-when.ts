// When a profiled workload has run long enough.

import {StringDecoder} from 'node:string_decoder'

/** Why a workload ended: by itself, or because of what was waited for. */
export type StopReason = 'exited' | 'period' | 'line' | 'signal' | 'aborted'

export interface StopConditions {
  readonly periodSeconds: number
  readonly waitOnLine?: string | undefined
  readonly stopSignal?: AbortSignal | undefined
  readonly signal?: AbortSignal | undefined
}

export interface StopWatch extends Disposable {
  /** Resolves when the workload should be stopped; never rejects, and stays pending once disposed. */
  readonly reason: Promise<Exclude<StopReason, 'exited'>>
  /** Shown what the workload prints, in pieces of any size. */
  onStdout(bytes: Uint8Array): void
}

/** A line longer than this is looked at in parts, characters: output without line ends must not fill memory. */
const MAX_LINE = 64 * 1024

/** Starts to wait: for a line of output, and for the period unless a signal decides. */
export function stopWhen(conditions: StopConditions): StopWatch {
  const {promise: reason, resolve} = Promise.withResolvers<Exclude<StopReason, 'exited'>>()
  const {waitOnLine, stopSignal, signal} = conditions
  const timer = stopSignal
    ? undefined
    : setTimeout(() => resolve('period'), Math.min(conditions.periodSeconds * 1000, 2 ** 31 - 1))
  const onStop = () => resolve('signal')
  const onAbort = () => resolve('aborted')
  if (stopSignal?.aborted) onStop()
  if (signal?.aborted) onAbort()
  stopSignal?.addEventListener('abort', onStop, {once: true})
  signal?.addEventListener('abort', onAbort, {once: true})
  const decoder = new StringDecoder('utf8')
  let line = ''
  return {
    reason,
    onStdout: bytes => {
      if (waitOnLine === undefined) return
      for (const part of decoder.write(Buffer.from(bytes)).split(/(?<=\n)/)) {
        line += part
        if (line.includes(waitOnLine)) resolve('line')
        if (part.endsWith('\n')) line = ''
        // What is kept could be the start of the text that is waited for.
        else if (line.length > MAX_LINE) line = line.slice(-waitOnLine.length)
      }
    },
    [Symbol.dispose]: () => {
      clearTimeout(timer)
      stopSignal?.removeEventListener('abort', onStop)
      signal?.removeEventListener('abort', onAbort)
    },
  }
}
