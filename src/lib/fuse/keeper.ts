// The keeper: a tiny process of its own (native/keeper.c) that holds descriptors by name while this one restarts.

export interface Keeper {
  /** Gives the keeper a copy of `fd` to hold under `name`, with a note of at most 1 KiB; replaces what it held there. */
  hold(name: string, fd: number, note: string): Promise<void>
  /** A copy of the descriptor held under `name`, the caller's to close; the keeper goes on holding it. */
  take(name: string): Promise<{readonly fd: number; readonly note: string} | undefined>
  /** Closes the keeper's copy; a keeper that holds nothing more ends. */
  drop(name: string): Promise<void>
}
