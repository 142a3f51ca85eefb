// The parts of one piece of work, which end together.

import {messageOf} from '../errors/coded-error.ts'

/**
 * Waits for every promise; when one fails, aborts the others, and throws the first failure once all have stopped, so
 * that nothing runs on behind the caller's back.
 */
export async function settleAll<T>(promises: readonly Promise<T>[], abort: AbortController): Promise<T[]> {
  let failure: {readonly error: unknown} | undefined
  const results = await Promise.all(
    promises.map(promise =>
      promise.catch(error => {
        failure ??= {error}
        abort.abort(
          new DOMException(`Stopped because another part failed: ${messageOf(error)}`, 'AbortError'),
        )
        return undefined as T
      }),
    ),
  )
  if (failure) throw failure.error
  return results
}
