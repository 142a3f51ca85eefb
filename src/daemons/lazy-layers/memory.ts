// Gives memory back after bursts: opening a layer takes many times what it leaves behind, and neither V8 nor the C
// library returns what they once had by themselves. What was used of the programs' own files goes, too: half of all.

import type {LayerEvents, LayerObserver} from '../../lib/layer/layer-observer.ts'
import {trimMemory} from '../../lib/native/system-calls.ts'

/** What takes memory; the daemon is quiet when none of it has happened for this long, milliseconds. */
const BURSTS: ReadonlySet<keyof LayerEvents> = new Set(['mounted', 'requested', 'filled'])
const QUIET_MS = 2_000

/** `observer`, with memory being given back when events have become few. Needs `--expose-gc` to do much. */
export function givingMemoryBack(observer: LayerObserver): LayerObserver {
  let timer: NodeJS.Timeout | undefined
  const giveBack = async () => {
    timer = undefined
    await globalThis.gc?.({type: 'major', execution: 'async', flavor: 'last-resort'})
    trimMemory()
  }
  const putOff = () => {
    timer ??= setTimeout(giveBack, QUIET_MS).unref()
    timer.refresh()
  }
  // Starting is a burst too.
  putOff()
  return {
    event: (name, fields) => {
      observer.event(name, fields)
      if (BURSTS.has(name)) putOff()
    },
  }
}
