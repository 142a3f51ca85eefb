// An archive of the four programs as files that need nothing beside them, for `tar -C /usr/local/bin -xf ARCHIVE
// containerd-stargz-grpc ctr-remote`: one file under four names, a shell script with the release archive behind it.

import {createHash} from 'node:crypto'
import {linkSync, readFileSync, writeFileSync} from 'node:fs'
import {join, resolve} from 'node:path'
import {PROGRAMS} from './program-tree.ts'

const SCRIPT = readFileSync(resolve(import.meta.dirname, 'self-extracting.sh'), 'utf8')

/** Writes the programs into `directory`, which is empty; `payload` is the release archive. */
export function writeSinglePrograms(directory: string, version: string, payload: Uint8Array): void {
  // Of both: another script may unpack the same archive otherwise.
  const hash = createHash('sha256').update(SCRIPT).update(payload).digest('hex')
  const filled = SCRIPT.replaceAll('@VERSION@', version)
    .replaceAll('@ID@', `${version}-${hash.slice(0, 16)}`)
    .replaceAll('@PROGRAMS@', PROGRAMS.join(' | '))
  const [first, ...others] = PROGRAMS.map(program => join(directory, program))
  writeFileSync(first!, Buffer.concat([placed(filled), payload]), {mode: 0o755})
  for (const other of others) linkSync(first!, other)
}

/** The script, with the byte at which the archive behind it starts, counted from 1 as tail(1) does. */
function placed(script: string): Buffer {
  const others = Buffer.byteLength(script.replace('@START@', ''))
  let start = others
  // The number's own digits count, too.
  while (start !== others + String(start).length + 1) start += 1
  return Buffer.from(script.replace('@START@', String(start)))
}
