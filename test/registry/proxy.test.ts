import {once} from 'node:events'
import {createServer, request as forward, type IncomingMessage} from 'node:http'
import {type AddressInfo, connect, type Socket} from 'node:net'
import {expect, onTestFinished, test} from 'vitest'
import type {ProxySettings} from '../../src/lib/registry/http.ts'
import type {RegistryOptions} from '../../src/lib/registry/registry.ts'
import {makeCertificate} from '../support/certificate.ts'
import type {FaultyRegistry} from '../support/faulty-registry.ts'
import {describeWith} from '../support/requires.ts'
import {temporaryDirectory} from '../support/temporary.ts'
import {openClient, readAll, sampleBytes, startRegistry} from './session.ts'

/** A proxy that sends everything to one server, whatever it is asked for; tells what it was asked for. */
async function startProxy(target: FaultyRegistry): Promise<{url: string; asked: string[]}> {
  const asked: string[] = []
  const [hostname, port] = target.host.split(':') as [string, string]
  const server = createServer((request, response) => {
    const {host, pathname, search} = new URL(request.url ?? '')
    asked.push(host)
    const {method, headers} = request
    const options = {hostname, port, method, headers, path: `${pathname}${search}`}
    request.pipe(
      forward(options, (answer: IncomingMessage) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers)
        answer.pipe(response)
      }),
    )
  })
  const sockets = new Set<Socket>()
  server.on('connect', (request, client: Socket) => {
    asked.push(request.url ?? '')
    const upstream = connect(Number(port), hostname, () => {
      client.write('HTTP/1.1 200 OK\r\n\r\n')
      upstream.pipe(client)
      client.pipe(upstream)
    })
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      socket.on('error', () => undefined)
    }
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.closeAllConnections()
    server.close()
  })
  return {url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked}
}

async function readThrough(host: string, server: FaultyRegistry, proxy: ProxySettings): Promise<number> {
  const descriptor = server.addBlob('app', sampleBytes(100))
  const client = openClient({proxy, plainHttp: true, retry: {attempts: 1}})
  const blob = await client.repository(`${host}/app`, {access: 'pull'}).openBlob(descriptor)
  return (await readAll(blob)).length
}

test('a registry is reached through a proxy', async () => {
  const server = await startRegistry()
  const {url, asked} = await startProxy(server)
  expect(await readThrough('registry.test:5000', server, {httpProxy: url})).toBe(100)
  expect(asked).toEqual(['registry.test:5000'])
})

test('the proxy of another scheme is not used', async () => {
  const server = await startRegistry()
  const {url, asked} = await startProxy(server)
  await expect(readThrough('registry.invalid', server, {httpsProxy: url})).rejects.toMatchObject({
    code: 'unavailable',
  })
  expect(asked).toEqual([])
})

test.each(['registry.invalid', '.invalid', '*'])('NO_PROXY=%s is respected', async noProxy => {
  const server = await startRegistry()
  const {url, asked} = await startProxy(server)
  await expect(readThrough('registry.invalid', server, {httpProxy: url, noProxy})).rejects.toThrow()
  expect(asked).toEqual([])
})

test('this machine is reached without a proxy', async () => {
  const server = await startRegistry()
  const {url, asked} = await startProxy(server)
  expect(await readThrough(server.host, server, {httpProxy: url})).toBe(100)
  expect(asked).toEqual([])
})

describeWith(['openssl'], 'a registry with TLS', () => {
  test('is reached through a proxy, and its certificate is checked', async () => {
    const {cert, key, certFile} = await makeCertificate(await temporaryDirectory(), 'DNS:registry.test')
    const server = await startRegistry({tls: {cert, key}})
    const {url, asked} = await startProxy(server)
    const descriptor = server.addBlob('app', sampleBytes(100))
    const read = async (options: RegistryOptions) => {
      const client = openClient({...options, proxy: {httpsProxy: url}, retry: {attempts: 1}})
      const blob = await client.repository('registry.test/app', {access: 'pull'}).openBlob(descriptor)
      return (await readAll(blob)).length
    }
    expect(await read({tlscacert: certFile})).toBe(100)
    await expect(read({})).rejects.toMatchObject({code: 'failed-precondition'})
    expect(asked).toEqual(['registry.test:443', 'registry.test:443'])
  })
})
