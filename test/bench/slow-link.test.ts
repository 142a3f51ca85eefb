import {createHash} from 'node:crypto'
import {once} from 'node:events'
import {type AddressInfo, connect, createServer, type Server, type Socket} from 'node:net'
import {expect, onTestFinished, test} from 'vitest'
import {startSlowLink} from '../../bench/startup/slow-link.ts'

async function startServer(onConnection: (socket: Socket) => void): Promise<number> {
  const server: Server = createServer({allowHalfOpen: true}, onConnection).listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => void server.close())
  return (server.address() as AddressInfo).port
}

async function startLink(targetPort: number, {delayMs = 1, mbit = 1000} = {}) {
  const link = await startSlowLink({targetPort, delayMs, mbit})
  onTestFinished(() => link[Symbol.asyncDispose]())
  return link
}

/** Sends everything and ends; resolves to what comes back until the other end ends, too. */
async function exchange(port: number, bytes: Buffer): Promise<Buffer> {
  const socket = connect({port, host: '127.0.0.1', allowHalfOpen: true}).end(bytes)
  const parts: Buffer[] = []
  for await (const part of socket) parts.push(part as Buffer)
  return Buffer.concat(parts)
}

test('bytes pass both ways as they are, also more than fit into the link, and each end may end on its own', async () => {
  const port = await startServer(async socket => {
    const hash = createHash('sha256')
    for await (const part of socket) hash.update(part as Buffer)
    socket.end(Buffer.concat([hash.digest(), Buffer.alloc(3_000_000, 'x')]))
  })
  const link = await startLink(port)
  const sent = Buffer.alloc(5_000_000, 'some bytes; ')
  const received = await exchange(link.port, sent)
  expect(received.subarray(0, 32)).toEqual(createHash('sha256').update(sent).digest())
  expect(received.subarray(32).equals(Buffer.alloc(3_000_000, 'x'))).toBe(true)
})

test('it takes two round trips to connect and be answered, and bytes take their time', async () => {
  const link = await startLink(await startServer(socket => socket.pipe(socket)), {delayMs: 20, mbit: 8})
  const begun = performance.now()
  await exchange(link.port, Buffer.alloc(100_000))
  // 80 ms of delay; 100 kB at a megabyte a second, the way back overlapping with the way there.
  expect(performance.now() - begun).toBeGreaterThanOrEqual(80 + 100)
})

test('a client is cut when the server breaks off, or is not there', async () => {
  const breaking = await startLink(
    await startServer(socket => socket.once('data', () => socket.resetAndDestroy())),
  )
  await expect(exchange(breaking.port, Buffer.from('x'))).rejects.toThrow()
  const nowhere = await startLink(1)
  await expect(exchange(nowhere.port, Buffer.from('x'))).rejects.toThrow()
})

test('a server learns when a client breaks off', async () => {
  const broken = Promise.withResolvers<void>()
  const port = await startServer(socket => {
    socket.write('hello')
    socket
      .resume()
      .on('error', () => undefined)
      .once('close', () => broken.resolve())
  })
  const socket = connect((await startLink(port)).port, '127.0.0.1')
  await once(socket, 'data')
  socket.resetAndDestroy()
  await broken.promise
})
