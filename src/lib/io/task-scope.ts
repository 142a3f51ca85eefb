// Work that uses something which will be closed: none of it starts after the end, and the end waits for all of it.

/** The tasks of one owner. */
export class TaskScope {
  readonly #running = new Set<Promise<unknown>>()
  readonly #ending = new AbortController()

  /** Aborts when the owner closes; tasks end soon then. */
  get signal(): AbortSignal {
    return this.#ending.signal
  }

  /** Runs `work`; throws the reason of the end, without running it, once there has been one. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    this.signal.throwIfAborted()
    const running = work()
    this.#running.add(running)
    try {
      return await running
    } finally {
      this.#running.delete(running)
    }
  }

  /** What runs now; resolves when it has ended, however. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#running)
  }

  /** Ends: lets nothing start any more, tells what runs, and waits for it. */
  async close(reason: unknown): Promise<void> {
    this.#ending.abort(reason)
    // What runs may start other work before it hears of it.
    while (this.#running.size > 0) await this.settled()
  }
}
