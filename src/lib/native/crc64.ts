// CRC-64/GO-ISO in JavaScript, for machines without the native codec: polynomial x^64 + x^4 + x^3 + x + 1, reflected,
// the state inverted at both ends. 64 bits are two halves of 32.

export const CHECKSUM_SIZE = 8

const HIGH = new Uint32Array(256)
const LOW = new Uint32Array(256)

for (let byte = 0; byte < 256; byte++) {
  let high = 0
  let low = byte
  for (let bit = 0; bit < 8; bit++) {
    const isOdd = low & 1
    low = (low >>> 1) | (high << 31)
    high >>>= 1
    if (isOdd) high ^= 0xd8000000
  }
  HIGH[byte] = high
  LOW[byte] = low
}

export interface Crc64 {
  update(bytes: Uint8Array): void
  /** The checksum of all bytes so far, big-endian. */
  digest(): Uint8Array
}

/** A fresh checksum. */
export function createCrc64(): Crc64 {
  let high = -1
  let low = -1
  return {
    update(bytes) {
      for (let at = 0; at < bytes.length; at++) {
        const byte = (low ^ bytes[at]!) & 0xff
        low = ((low >>> 8) | (high << 24)) ^ LOW[byte]!
        high = (high >>> 8) ^ HIGH[byte]!
      }
    },
    digest() {
      const digest = new Uint8Array(CHECKSUM_SIZE)
      const view = new DataView(digest.buffer)
      view.setUint32(0, ~high >>> 0)
      view.setUint32(4, ~low >>> 0)
      return digest
    },
  }
}
