// A slow network link on this machine: a TCP proxy that adds latency, and lets only so many bits pass per second.
// As a program: `node bench/startup/slow-link.ts TARGET_PORT [--delay 10] [--mbit 200] [--port 0]`.

import {connect, createServer, type Server, type Socket} from 'node:net'
import {parseArgs} from 'node:util'

export interface SlowLinkOptions {
  /** Port on the loopback interface that connections are passed on to. */
  readonly targetPort: number
  /** One way; a round trip takes twice as long. */
  readonly delayMs: number
  /** Megabits per second, in each direction, shared by all connections. */
  readonly mbit: number
  /** Port to listen on; 0, the default, takes a free one. */
  readonly port?: number
}

/** A running link; disposing it cuts its connections. */
export interface SlowLink extends AsyncDisposable {
  readonly port: number
  /** `127.0.0.1:port` */
  readonly address: string
}

/** Bytes on their way in one direction of one connection, beyond which the sender has to wait. */
const MAX_IN_FLIGHT = 1 << 20
/** Bytes that pass as one: a small packet of another connection need not wait for a whole read. */
const SEGMENT = 16 * 1024

/** Starts a link. Opening a connection takes a round trip, as a TCP handshake does; there is no slow start and no loss. */
export async function startSlowLink(options: SlowLinkOptions): Promise<SlowLink> {
  const {targetPort, delayMs} = options
  const [up, down] = [createLane(options), createLane(options)]
  const sockets = new Set<Socket>()
  const track = (socket: Socket) => {
    sockets.add(socket.setNoDelay())
    // Either end may break; the other is told by being cut.
    socket.on('error', () => undefined).once('close', () => sockets.delete(socket))
  }
  const server = createServer({allowHalfOpen: true, pauseOnConnect: true}, client => {
    track(client)
    setTimeout(() => {
      if (client.destroyed) return
      const target = connect({port: targetPort, host: '127.0.0.1', allowHalfOpen: true})
      track(target)
      carry(client, target, up)
      carry(target, client, down)
      client.resume()
    }, 2 * delayMs)
  })
  const port = await listen(server, options.port ?? 0)
  return {
    port,
    address: `127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      const closed = new Promise(resolve => server.close(resolve))
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}

/** One direction of the link: says when bytes that enter it now come out at its end. */
type Lane = (byteCount: number) => number

function createLane({delayMs, mbit}: SlowLinkOptions): Lane {
  const bytesPerMs = (mbit * 1e6) / 8 / 1000
  let freeAtMs = 0
  return byteCount => {
    freeAtMs = Math.max(freeAtMs, performance.now()) + byteCount / bytesPerMs
    return freeAtMs + delayMs
  }
}

function carry(from: Socket, to: Socket, lane: Lane): void {
  const queue: {readonly atMs: number; readonly bytes: Buffer | undefined}[] = []
  let inFlight = 0
  let timer: NodeJS.Timeout | undefined

  function enter(bytes: Buffer | undefined): void {
    queue.push({atMs: lane(bytes?.length ?? 0), bytes})
    inFlight += bytes?.length ?? 0
    if (inFlight >= MAX_IN_FLIGHT) from.pause()
    if (!timer) wake()
  }

  function deliver(): void {
    timer = undefined
    while (queue[0] && queue[0].atMs <= performance.now()) {
      const {bytes} = queue.shift()!
      inFlight -= bytes?.length ?? 0
      if (bytes) to.write(bytes)
      else to.end()
    }
    if (inFlight < MAX_IN_FLIGHT) from.resume()
    if (queue[0]) wake()
  }

  function wake(): void {
    timer = setTimeout(deliver, Math.max(1, queue[0]!.atMs - performance.now()))
  }

  from.on('data', (data: Buffer) => {
    for (let at = 0; at < data.length; at += SEGMENT) enter(data.subarray(at, at + SEGMENT))
  })
  from.once('end', () => enter(undefined))
  from.once('close', hadError => {
    if (hadError || !from.readableEnded) to.resetAndDestroy()
  })
}

function listen(server: Server, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject).listen(port, '127.0.0.1', () => {
      const bound = server.address()
      resolve(typeof bound === 'object' && bound ? bound.port : port)
    })
  })
}

if (import.meta.main) {
  const {values, positionals} = parseArgs({
    allowPositionals: true,
    options: {
      delay: {type: 'string', default: '10'},
      mbit: {type: 'string', default: '200'},
      port: {type: 'string', default: '0'},
    },
  })
  const targetPort = Number(positionals[0])
  if (!targetPort) throw new Error('usage: slow-link.ts TARGET_PORT [--delay MS] [--mbit N] [--port N]')
  const link = await startSlowLink({
    targetPort,
    delayMs: Number(values.delay),
    mbit: Number(values.mbit),
    port: Number(values.port),
  })
  console.log(link.address)
}
