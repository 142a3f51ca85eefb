// Layers with very many files take memory for each; a program may do something about it, a library does not.

/** Told of layers with very many files. */
export interface MemoryCare {
  /** A layer turns out to be one: each of its files takes memory until it is written. */
  foundManyFiles(): void
  /** Its conversion has been planned, which left as much garbage. */
  plannedManyFiles(): void
}

/** Files of a layer, of some 500 bytes each in memory, from which on they are more than all else. */
export const MANY_FILES = 30_000
