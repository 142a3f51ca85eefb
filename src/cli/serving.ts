// Flags and log lines of `registry serve`.

import {readFile} from 'node:fs/promises'
import {CodedError} from '../lib/errors/coded-error.ts'
import {parseUser} from '../lib/registry/keychain.ts'
import type {Credentials} from '../lib/registry-server/answer-from-store.ts'
import type {RequestLogEntry} from '../lib/registry-server/answer-request.ts'
import {formatBytes, formatDuration} from './units.ts'

/** `127.0.0.1:5000`, `[::1]:5000` or `:5000` (every interface); throws `invalid-argument`. */
export function splitAddress(text: string): {readonly host: string; readonly port: number} {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]*)):(\d{1,5})$/.exec(text)
  const port = Number(match?.[3])
  if (!match || port > 65535) {
    throw new CodedError(
      'invalid-argument',
      `Cannot listen on ${JSON.stringify(text)}: expected "host:port", such as "127.0.0.1:5000"`,
    )
  }
  return {host: match[1] ?? (match[2] || '0.0.0.0'), port}
}

/** Like the user of a client, but none without a password; throws `invalid-argument`, without the text, which is secret. */
export function splitCredentials(text: string): Credentials {
  const {username, password} = parseUser(text)
  if (password === '') {
    throw new CodedError(
      'invalid-argument',
      'Cannot use the value of --user: its password is empty; give one',
    )
  }
  return {username, password}
}

/** Reads a certificate and its key. */
export async function readTls(certFile: string, keyFile: string): Promise<{cert: string; key: string}> {
  const [cert, key] = await Promise.all([readFile(certFile, 'utf8'), readFile(keyFile, 'utf8')])
  return {cert, key}
}

/** `GET /v2/app/blobs/sha256:… bytes=0-99 206  100 B  3ms`. */
export function formatRequest(entry: RequestLogEntry): string {
  const {method, path, range, status, receivedBytes, sentBytes, durationMs, error} = entry
  const bytes = receivedBytes > 0 ? `${formatBytes(receivedBytes)} received` : formatBytes(sentBytes)
  const parts = [
    method,
    path,
    ...(range ? [range] : []),
    status,
    ` ${bytes}`,
    ` ${formatDuration(durationMs)}`,
  ]
  return `${parts.join(' ')}${error ? `  ${error}` : ''}`
}
