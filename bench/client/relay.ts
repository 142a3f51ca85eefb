// Stands in front of a server and notices when a client sends its first bytes, and what processor time it has had by then.

import {readdirSync, readFileSync} from 'node:fs'
import {type AddressInfo, createConnection, createServer, type Socket} from 'node:net'
import {descendants} from '../convert/measure.ts'

/** What a client had used when its first request arrived. */
export interface FirstRequest {
  readonly cpuMs: number
  readonly wallMs: number
}

export interface Relay extends AsyncDisposable {
  readonly port: number
  /** Watches the client that the process with this id has just started. */
  watch(pid: number): void
  /** Of the client that is watched; undefined when it has sent nothing. */
  first(): FirstRequest | undefined
}

/** Relays to `target`, a port of this machine or the path of a socket; listens on `path`, or on a free port. */
export async function startRelay(target: number | string, path?: string): Promise<Relay> {
  const sockets = new Set<Socket>()
  let client: {readonly pid: number; readonly startedAt: number; first?: FirstRequest} | undefined
  const server = createServer(near => {
    const far = typeof target === 'number' ? createConnection(target, '127.0.0.1') : createConnection(target)
    for (const socket of [near, far]) {
      sockets.add(socket.setNoDelay())
      socket.on('close', () => sockets.delete(socket))
    }
    near.once('data', () => {
      if (!client || client.first) return
      client.first = {cpuMs: cpuMsOfChildren(client.pid), wallMs: performance.now() - client.startedAt}
    })
    near.on('error', () => far.destroy()).pipe(far)
    far.on('error', () => near.destroy()).pipe(near)
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    if (path === undefined) server.listen(0, '127.0.0.1', resolve)
    else server.listen(path, resolve)
  })
  return {
    port: path === undefined ? (server.address() as AddressInfo).port : 0,
    watch(pid) {
      client = {pid, startedAt: performance.now()}
    },
    first: () => client?.first,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await new Promise(resolve => server.close(resolve))
    },
  }
}

/** What the threads of a process's children have run for: the first figure of schedstat is in nanoseconds. */
function cpuMsOfChildren(parent: number): number {
  let nanoseconds = 0
  for (const pid of descendants(parent)) {
    if (pid === parent) continue
    for (const thread of readdirSync(`/proc/${pid}/task`)) {
      nanoseconds += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0])
    }
  }
  return nanoseconds / 1e6
}
