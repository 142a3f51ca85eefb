// Memory that work may take together, so that what many do at once stays within bounds.

import {raceAbort} from '../io/race-abort.ts'
import type {CallOptions} from '../oci/content-store.ts'

/** Memory that is taken until it is disposed of. */
export type TakenMemory = Disposable

export class MemoryBudget {
  readonly #size: number
  #free: number
  readonly #waiting: {readonly bytes: number; readonly give: () => void}[] = []

  /** `size` in bytes. */
  constructor(size: number) {
    this.#size = size
    this.#free = size
  }

  get free(): number {
    return this.#free
  }

  /** Waits until so many bytes are free, first come first served; who wants more than there is gets all of it. */
  async take(bytes: number, {signal}: CallOptions): Promise<TakenMemory> {
    signal?.throwIfAborted()
    const taken = this.#waiting.length === 0 ? this.tryTake(bytes) : undefined
    if (taken) return taken
    const given = Promise.withResolvers<void>()
    const waiting = {bytes: Math.min(bytes, this.#size), give: given.resolve}
    this.#waiting.push(waiting)
    try {
      await raceAbort(given.promise, signal)
    } catch (error) {
      const index = this.#waiting.indexOf(waiting)
      // What was given in the same moment is given back.
      if (index < 0) this.#free += waiting.bytes
      else this.#waiting.splice(index, 1)
      this.#giveWaiting()
      throw error
    }
    return this.#taken(waiting.bytes)
  }

  /** So many bytes if they are free now. */
  tryTake(wanted: number): TakenMemory | undefined {
    const bytes = Math.min(wanted, this.#size)
    if (bytes > this.#free) return undefined
    this.#free -= bytes
    return this.#taken(bytes)
  }

  #taken(bytes: number): TakenMemory {
    return {
      [Symbol.dispose]: () => {
        this.#free += bytes
        this.#giveWaiting()
      },
    }
  }

  #giveWaiting(): void {
    for (let next = this.#waiting[0]; next && next.bytes <= this.#free; next = this.#waiting[0]) {
      this.#waiting.shift()
      this.#free -= next.bytes
      next.give()
    }
  }
}
