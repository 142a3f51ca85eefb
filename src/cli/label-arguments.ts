// Labels as flags give them.

import {CodedError} from '../lib/errors/coded-error.ts'

/** Parses `key=value` words; a later one of the same key wins. Throws `invalid-argument`. */
export function parseLabels(texts: readonly string[]): Record<string, string> {
  const labels: Record<string, string> = {}
  for (const text of texts) {
    const equals = text.indexOf('=')
    if (equals <= 0) {
      throw new CodedError(
        'invalid-argument',
        `Cannot use the label ${JSON.stringify(text)}: expected "key=value"`,
      )
    }
    labels[text.slice(0, equals)] = text.slice(equals + 1)
  }
  return labels
}
