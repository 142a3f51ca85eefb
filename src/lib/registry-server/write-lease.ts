// Keeps what was uploaded until its manifest arrives: a push is many requests, and a collector may run between them.

import type {Store} from '../oci/image-store.ts'

/** After the last write for this long, an upload that no manifest names is garbage. */
const IDLE_MS = 60 * 60 * 1000

/** A lease of the store that lasts from the first write until an hour after the last. */
export interface WriteLease extends AsyncDisposable {
  /** Call before a write, or before content is promised to stay. */
  extend(): Promise<void>
}

export function createWriteLease(store: Store): WriteLease {
  let current: Promise<AsyncDisposable> | undefined
  let timer: NodeJS.Timeout | undefined

  async function end(): Promise<void> {
    clearTimeout(timer)
    const ending = current
    current = undefined
    await (await ending)?.[Symbol.asyncDispose]()
  }

  return {
    async extend() {
      clearTimeout(timer)
      // A lease file that cannot be removed is removed by the next collector.
      timer = setTimeout(() => end().catch(() => undefined), IDLE_MS).unref()
      current ??= store.lease()
      const taking = current
      try {
        await taking
      } catch (error) {
        if (current === taking) current = undefined
        throw error
      }
    },
    [Symbol.asyncDispose]: end,
  }
}
