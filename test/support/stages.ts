// A unix socket in front of another that tells how far a conversation has come, so that tests can break in at any stage.

import {createConnection, createServer, type Socket} from 'node:net'

export interface Stages extends AsyncDisposable {
  readonly address: string
  /** Pieces of bytes that clients have sent. */
  readonly count: number
  /** Starts counting anew; `breakIn` runs once, before the piece of number `stage` is passed on. */
  at(stage: number, breakIn: () => void | Promise<void>): void
}

/** Listens on `address` and passes everything on to `target`, and back. */
export async function startStages(address: string, target: string): Promise<Stages> {
  let count = 0
  let stage = 0
  let breakIn: (() => void | Promise<void>) | undefined
  const open = new Set<Socket>()

  async function reached(): Promise<void> {
    count += 1
    if (count !== stage) return
    const work = breakIn
    breakIn = undefined
    await work?.()
  }

  const server = createServer(client => {
    const inner = createConnection(target)
    for (const [from, to] of [
      [client, inner],
      [inner, client],
    ] as const) {
      open.add(from)
      from.on('close', () => {
        open.delete(from)
        to.destroy()
      })
      from.on('error', () => from.destroy())
    }
    inner.pipe(client)
    // One piece after the other: what is behind the one that is broken in at waits with it.
    let turn = Promise.resolve()
    client.on('data', bytes => {
      client.pause()
      turn = turn.then(reached).then(() => {
        inner.write(bytes)
        client.resume()
      })
    })
    client.on('end', () => void turn.then(() => inner.end()))
  })
  await new Promise<void>(resolve => server.listen(address, resolve))
  return {
    address,
    get count() {
      return count
    },
    at(number, work) {
      count = 0
      stage = number
      breakIn = work
    },
    async [Symbol.asyncDispose]() {
      for (const socket of open) socket.destroy()
      await new Promise(resolve => server.close(resolve))
    },
  }
}
