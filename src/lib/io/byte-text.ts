// Names that need not be UTF-8. File names are bytes; where they are not valid UTF-8 each offending byte becomes a lone
// surrogate U+DC80–U+DCFF (Python's PEP 383 "surrogateescape"), so that every byte string has its own text and back.

const encoder = new TextEncoder()
const strictDecoder = new TextDecoder('utf-8', {fatal: true, ignoreBOM: true})
const LONE_ESCAPE = /[\udc80-\udcff]/u

/** `bytes` as text; `encodeByteText` is its inverse. */
export function decodeByteText(bytes: Uint8Array): string {
  if (bytes.length < 256 && isAscii(bytes)) return String.fromCharCode(...bytes)
  try {
    return strictDecoder.decode(bytes)
  } catch {
    return decodeEscaping(bytes)
  }
}

/** The bytes of text that `decodeByteText` made; for any other text, its UTF-8. */
export function encodeByteText(text: string): Uint8Array {
  if (!LONE_ESCAPE.test(text)) return encoder.encode(text)
  const parts: number[] = []
  for (const character of text) {
    const point = character.codePointAt(0)!
    if (point >= 0xdc80 && point <= 0xdcff) parts.push(point - 0xdc00)
    else parts.push(...encoder.encode(character))
  }
  return Uint8Array.from(parts)
}

/**
 * `text` as `decodeByteText` writes the bytes that it stands for, so that texts of the same bytes are the same: others than ours
 * may escape what is UTF-8, or write lone surrogates that stand for no byte.
 */
export function canonicalByteText(text: string): string {
  return text.isWellFormed() ? text : decodeByteText(encodeByteText(text))
}

function isAscii(bytes: Uint8Array): boolean {
  for (const byte of bytes) if (byte >= 0x80) return false
  return true
}

/** Takes the longest valid sequence at each place, or escapes one byte. */
function decodeEscaping(bytes: Uint8Array): string {
  let text = ''
  for (let at = 0; at < bytes.length; ) {
    const size = sequenceSize(bytes[at]!)
    const sequence = bytes.subarray(at, at + size)
    const decoded = size > 0 && sequence.length === size ? tryDecode(sequence) : undefined
    text += decoded ?? String.fromCharCode(0xdc00 + bytes[at]!)
    at += decoded === undefined ? 1 : size
  }
  return text
}

/** The size of the UTF-8 sequence that `lead` starts; 0 for a byte that starts none. */
function sequenceSize(lead: number): number {
  if (lead < 0x80) return 1
  if (lead >= 0xc2 && lead < 0xe0) return 2
  if (lead >= 0xe0 && lead < 0xf0) return 3
  return lead >= 0xf0 && lead < 0xf5 ? 4 : 0
}

function tryDecode(bytes: Uint8Array): string | undefined {
  try {
    return strictDecoder.decode(bytes)
  } catch {
    return undefined
  }
}
