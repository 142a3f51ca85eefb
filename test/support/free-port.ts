import {once} from 'node:events'
import {createServer} from 'node:net'

/** A port of the loopback interface that nobody listens on at this moment. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const {port} = server.address() as {port: number}
  const closed = once(server, 'close')
  server.close()
  await closed
  return port
}
