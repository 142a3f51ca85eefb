// Asynchronous calls on one thing that must not overlap: each starts when the one before has ended.

/** Runs `work` after all work given before; once one has failed, every later one fails the same way. */
export type InOrder = <T>(work: () => Promise<T>) => Promise<T>

export function createInOrder(): InOrder {
  let last: Promise<unknown> = Promise.resolve()
  return work => {
    const result = last.then(work)
    last = result
    // Whoever called has the result; nobody need wait for `last`.
    last.catch(() => {})
    return result
  }
}
