// Sizes as people write them: `500MiB`, `20GB`, `1.5T`, `0`.

import {CodedError} from '../lib/errors/coded-error.ts'

const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  k: 1024,
  m: 1024 ** 2,
  g: 1024 ** 3,
  t: 1024 ** 4,
  kb: 1000,
  mb: 1000 ** 2,
  gb: 1000 ** 3,
  tb: 1000 ** 4,
}

/** Bytes of a size; throws `invalid-argument`. */
export function parseByteSize(text: string): number {
  const match = /^(\d{1,15}(?:\.\d{1,9})?)\s*(|[kmgt](?:i?b)?)$/i.exec(text.trim())
  const unit = match?.[2]?.toLowerCase().replace('ib', '')
  const bytes = Math.floor(Number(match?.[1]) * (UNITS[unit ?? ''] ?? Number.NaN))
  if (Number.isSafeInteger(bytes)) return bytes
  throw new CodedError(
    'invalid-argument',
    `Cannot parse the size ${JSON.stringify(text)}: expected a number of bytes, or one with a unit, such as "20GiB"`,
  )
}
