// Asks for the password of `--user NAME`, as `ctr` does.

import {Writable} from 'node:stream'

/** `creds` with a password: its own, or one typed on the terminal. Without a terminal it stays as it is. */
export async function completeCredentials(
  creds: string | undefined,
  signal: AbortSignal,
): Promise<string | undefined> {
  if (!creds || creds.includes(':') || !process.stdin.isTTY) return creds
  const {createInterface} = await import('node:readline/promises')
  process.stderr.write(`Password of ${creds}: `)
  const silence = new Writable({write: (_chunk, _encoding, done) => done()})
  const terminal = createInterface({input: process.stdin, output: silence, terminal: true})
  // While a line is read, the terminal sends Ctrl-C as a key.
  terminal.on('SIGINT', () => process.kill(process.pid, 'SIGINT'))
  try {
    return `${creds}:${await terminal.question('', {signal})}`
  } finally {
    terminal.close()
    process.stderr.write('\n')
  }
}
