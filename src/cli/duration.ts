// Durations as Go's flags take them: `300ms`, `1.5h`, `1m30s`, `0`.

import {CodedError} from '../lib/errors/coded-error.ts'

const MILLISECONDS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
}

/** Milliseconds of a duration; throws `invalid-argument`. A number without a unit is only allowed when it is 0. */
export function parseDurationMs(text: string): number {
  const parts = [...text.matchAll(/(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)/g)]
  const isWhole = parts.length > 0 && parts.map(part => part[0]).join('') === text
  if (text === '0') return 0
  if (!isWhole) {
    throw new CodedError(
      'invalid-argument',
      `Cannot parse the duration ${JSON.stringify(text)}: expected a number with a unit, such as "30s" or "1m30s"`,
    )
  }
  return parts.reduce((sum, [, amount, unit]) => sum + Number(amount) * MILLISECONDS[unit!]!, 0)
}
