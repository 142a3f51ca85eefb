// What `node check` shows: a line for each thing that was looked at, and what to do about it.

import type {Finding} from '../lib/node/finding.ts'

const WORDS = {ok: 'ok', warning: 'warning', problem: 'PROBLEM'} as const

export function formatFindings(findings: readonly Finding[]): string {
  return findings
    .map(({level, message, breaks, remedy}) =>
      [
        `${WORDS[level].padEnd(9)}${message}`,
        ...(breaks === undefined ? [] : [`         so: ${breaks}`]),
        ...(remedy === undefined ? [] : [`         mend: ${remedy.replaceAll('\n', '\n           ')}`]),
      ].join('\n'),
    )
    .join('\n')
}
