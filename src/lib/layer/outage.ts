// Remembers that a registry could not be reached: the first reader waits for it as long as readers do, and the others must
// not wait as long each. The kernel asks for a file page by page, so that one read could otherwise take hours to fail.

/** Readers fail at once for this long after one has failed, milliseconds; then one attempt shows whether it is over. */
const PAUSE_MS = 5_000

export interface Outage {
  /**
   * Whether it is worth waiting: false when the last who waited did so in vain, and one attempt must do. Throws what
   * that one failed with when it is not even worth asking.
   */
  mayWait(): boolean
  begin(error: unknown): void
  end(): void
}

/** `now` in milliseconds, from any start. */
export function createOutage(now: () => number): Outage {
  let last: {readonly error: unknown; readonly until: number} | undefined
  return {
    mayWait() {
      if (last && now() < last.until) throw last.error
      return last === undefined
    },
    begin: error => {
      last = {error, until: now() + PAUSE_MS}
    },
    end: () => {
      last = undefined
    },
  }
}
