// Numbers of as many bytes as they need: seven bits in each, the lowest first, the eighth says that more follow (LEB128).

/** Bits of a number that JavaScript has exactly. */
const MAX_BITS = 53

/** A whole number that is not negative. */
export function writeVarint(value: number): number[] {
  const bytes: number[] = []
  let rest = value
  while (rest >= 128) {
    bytes.push((rest % 128) | 128)
    rest = Math.floor(rest / 128)
  }
  return [...bytes, rest]
}

/** The number at `at`, and where the next one is; undefined when it does not end, or is too large. */
export function readVarint(bytes: Uint8Array, at: number): {value: number; next: number} | undefined {
  let value = 0
  for (let [next, bits] = [at, 0]; next < bytes.length && bits < MAX_BITS; next++, bits += 7) {
    const byte = bytes[next]!
    value += (byte & 127) * 2 ** bits
    if (byte < 128) return Number.isSafeInteger(value) ? {value, next: next + 1} : undefined
  }
  return undefined
}

/** Signed numbers as others: 0, -1, 1, -2, 2 are 0, 1, 2, 3, 4. */
export function zigzag(value: number): number {
  return value < 0 ? -2 * value - 1 : 2 * value
}

export function unzigzag(value: number): number {
  return value % 2 === 1 ? -(value + 1) / 2 : value / 2
}
