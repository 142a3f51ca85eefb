// UTF-8 of a text that grows piece by piece, with little garbage: all of it may have a hundred MB.

/** UTF-8 of a UTF-16 code unit has at most so many bytes. */
const MAX_UNIT_SIZE = 3
/** Bytes: enough for a small layer's; it doubles when it has to. */
const FIRST_CAPACITY = 16 << 10

export class Utf8Buffer {
  readonly #encoder = new TextEncoder()
  #bytes = new Uint8Array(FIRST_CAPACITY)
  #size = 0

  /** Bytes. */
  get size(): number {
    return this.#size
  }

  append(text: string): void {
    const needed = this.#size + text.length * MAX_UNIT_SIZE
    if (needed > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(needed, 2 * this.#bytes.length))
      grown.set(this.#bytes.subarray(0, this.#size))
      this.#bytes = grown
    }
    this.#size += this.#encoder.encodeInto(text, this.#bytes.subarray(this.#size)).written
  }

  /** What was appended since the last time; overwritten by what is appended next. */
  take(): Uint8Array {
    const bytes = this.#bytes.subarray(0, this.#size)
    this.#size = 0
    return bytes
  }
}

/** Bytes that `encodeTexts` gives out at once, or a little more. */
const PART_SIZE = 1 << 20

/** The bytes of all texts, one after the other. Each part is overwritten when the next one is asked for. */
export function* encodeTexts(texts: Iterable<string>): Generator<Uint8Array> {
  const buffer = new Utf8Buffer()
  for (const text of texts) {
    buffer.append(text)
    if (buffer.size >= PART_SIZE) yield buffer.take()
  }
  if (buffer.size > 0) yield buffer.take()
}
