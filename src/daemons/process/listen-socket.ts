// The daemon's unix socket: one that a dead daemon left is removed, one that a living daemon serves is respected.

import {lstat, mkdir, unlink} from 'node:fs/promises'
import {connect} from 'node:net'
import {dirname} from 'node:path'
import {CodedError, hasCode} from '../../lib/errors/coded-error.ts'

/** sockaddr_un has 108 bytes, with a terminating NUL; the kernel's own message for longer paths is "invalid argument". */
const MAX_SOCKET_PATH = 107

/** Makes `path` free to listen on, and its folder. Throws `failed-precondition`, `invalid-argument`. */
export async function makeWayForSocket(path: string): Promise<void> {
  if (Buffer.byteLength(path) > MAX_SOCKET_PATH) {
    throw new CodedError(
      'invalid-argument',
      `Cannot listen on "${path}": it exceeds ${MAX_SOCKET_PATH} bytes`,
    )
  }
  await mkdir(dirname(path), {recursive: true, mode: 0o700})
  const found = await lstat(path).catch(error => {
    if (hasCode(error, 'not-found')) return undefined
    throw error
  })
  if (!found) return
  if (!found.isSocket()) {
    throw new CodedError('failed-precondition', `Cannot listen on "${path}": it exists and is no socket`)
  }
  if (await isServed(path)) {
    throw new CodedError('failed-precondition', `Cannot listen on "${path}": another daemon listens there`)
  }
  await unlink(path)
}

function isServed(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect(path)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNREFUSED' || error.code === 'ENOENT') resolve(false)
      // A full backlog: somebody listens, and is slow.
      else if (error.code === 'EAGAIN') resolve(true)
      else reject(error)
    })
  })
}
