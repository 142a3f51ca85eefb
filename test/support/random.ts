// Numbers that look random, and are the same for the same seed.

/** Whole numbers from 0 to below `limit`. */
export type Random = (limit: number) => number

export function createRandom(seed: number): Random {
  let state = (Math.imul(seed, 2_654_435_761) ^ 0x9e3779b9) >>> 0
  return limit => {
    // xorshift32: seeds beside each other must not give trees like each other.
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % limit
  }
}
