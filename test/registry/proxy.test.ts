import {once} from 'node:events'
import {createServer, request as forward, type IncomingMessage} from 'node:http'
import {type AddressInfo, connect, type Socket} from 'node:net'
import {describe, expect, onTestFinished, test} from 'vitest'
import {isExempt, type ProxySettings} from '../../src/lib/registry/proxy.ts'
import type {RegistryOptions} from '../../src/lib/registry/registry.ts'
import {makeCertificate} from '../support/certificate.ts'
import type {FaultyRegistry} from '../support/faulty-registry.ts'
import {describeWith} from '../support/requires.ts'
import {temporaryDirectory} from '../support/temporary.ts'
import {openClient, readAll, sampleBytes, startRegistry} from './registry-scene.ts'

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

// What Go's httpproxy package (and so containerd) and curl take NO_PROXY for.
const EXEMPTIONS: readonly (readonly [url: string, noProxy: string, exempt: boolean])[] = [
  ['http://example.com', '', false],
  ['http://example.com', '*', true],
  ['http://example.com', 'example.com', true],
  ['http://sub.example.com', 'example.com', true],
  ['http://notexample.com', 'example.com', false],
  ['http://example.com', '.example.com', false],
  ['http://sub.example.com', '.example.com', true],
  ['http://sub.example.com', '*.example.com', true],
  ['http://example.com', 'EXAMPLE.COM.', true],
  ['http://example.com.', 'example.com', true],
  ['http://example.com:5000', 'example.com:5000', true],
  ['http://example.com:5001', 'example.com:5000', false],
  ['http://example.com', 'example.com:80', true],
  ['https://example.com', 'example.com:443', true],
  ['https://example.com', 'example.com:80', false],
  ['http://example.com', 'other.org, example.com', true],
  ['http://example.com', 'other.org example.com', true],
  ['http://10.1.2.3:5000', '10.0.0.0/8', true],
  ['http://11.1.2.3', '10.0.0.0/8', false],
  ['http://10.1.2.3', '10.1.2.3', true],
  ['http://10.1.2.30', '10.1.2.3', false],
  ['http://10.1.2.3:5000', '10.1.2.3:5000', true],
  ['http://10.1.2.3:5001', '10.1.2.3:5000', false],
  ['http://10.1.2.3', '10.0.0.0/99', false],
  ['http://10.1.2.3', '.2.3', false],
  ['http://a.10.1.2.3.example', '10.1.2.3', false],
  ['http://[fd00::1]:5000', 'fd00::/8', true],
  ['http://[fe00::1]', 'fd00::/8', false],
  ['http://[fd00::1]', 'fd00:0::1', true],
  ['http://[fd00::1]:5000', '[fd00::1]:5000', true],
  ['http://[fd00::1]:5001', '[fd00::1]:5000', false],
  ['http://example.com', '10.0.0.0/8', false],
]
test.each(EXEMPTIONS)('%s with NO_PROXY=%j is exempt: %s', (url, noProxy, exempt) => {
  expect(isExempt(new URL(url), noProxy)).toBe(exempt)
})

test('a proxy may be given without a scheme', async () => {
  const server = await startRegistry()
  const {url, asked} = await startProxy(server)
  expect(await readThrough('registry.test:5000', server, {httpProxy: url.replace('http://', '')})).toBe(100)
  expect(asked).toEqual(['registry.test:5000'])
})

test('what is no URL of a proxy is said, with the name of its variable', async () => {
  const server = await startRegistry()
  await expect(readThrough('registry.test', server, {httpProxy: 'http://'})).rejects.toMatchObject({
    code: 'invalid-argument',
    message: expect.stringContaining('HTTP_PROXY'),
  })
})

describe('a failure names the proxy, without credentials', () => {
  /** A proxy that answers everything with a status. */
  async function startRefusingProxy(status: number): Promise<string> {
    const server = createServer((_, response) => response.writeHead(status).end())
    server.on('connect', (_, socket: Socket) => {
      socket.on('error', () => undefined)
      socket.end(`HTTP/1.1 ${status} No\r\n\r\n`)
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    onTestFinished(() => {
      server.closeAllConnections()
      server.close()
    })
    return `127.0.0.1:${(server.address() as AddressInfo).port}`
  }
  const read = async (proxy: ProxySettings, plainHttp: boolean) => {
    const client = openClient({proxy, plainHttp})
    return client.repository('registry.test/app', {access: 'pull'}).resolve('latest')
  }

  test('that refuses a request', async () => {
    const host = await startRefusingProxy(403)
    await expect(read({httpProxy: `http://me:secret@${host}`}, true)).rejects.toMatchObject({
      code: 'permission-denied',
      message: expect.stringContaining(`at registry.test through the proxy "http://${host}"`),
    })
  })

  test.each([403, 407])('that refuses to connect (HTTP %i)', async status => {
    const host = await startRefusingProxy(status)
    await expect(read({httpsProxy: `http://me:secret@${host}`}, false)).rejects.toMatchObject({
      code: 'failed-precondition',
      message: expect.stringMatching(
        new RegExp(
          `at registry.test through the proxy "http://${host}": the proxy refuses to connect.*${status}`,
        ),
      ),
    })
  })

  test('that wants credentials', async () => {
    const host = await startRefusingProxy(407)
    await expect(read({httpProxy: `http://${host}`}, true)).rejects.toMatchObject({
      code: 'unauthenticated',
      message: expect.stringContaining(`through the proxy "http://${host}": Proxy Authentication Required`),
    })
  })

  test('that is not there', async () => {
    await expect(read({httpProxy: 'http://127.0.0.1:9'}, true)).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining('through the proxy "http://127.0.0.1:9": nothing listens there'),
    })
  })
})
