// A host that refuses connections: given up soon where nobody was ever seen, waited for where somebody was.

import {createServer} from 'node:http'
import type {AddressInfo} from 'node:net'
import {expect, test} from 'vitest'
import type {RequestTrace} from '../../src/lib/registry/trace.ts'
import {startFaultyRegistry} from '../support/faulty-registry.ts'
import {FAST_RETRY, openClient} from './registry-scene.ts'

const MANIFEST = {schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests: []}

/** An address of this machine where nothing listens. */
async function unusedHost(): Promise<string> {
  const server = createServer()
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const {port} = server.address() as AddressInfo
  await new Promise(resolve => server.close(resolve))
  return `127.0.0.1:${port}`
}

test('a host that was never seen is tried three times', async () => {
  const traces: RequestTrace[] = []
  const host = await unusedHost()
  const client = openClient({retry: {...FAST_RETRY, attempts: 50}, onRequest: trace => traces.push(trace)})
  await expect(client.repository(`${host}/app`, {access: 'pull'}).resolve('1')).rejects.toMatchObject({
    code: 'unavailable',
    message: expect.stringMatching(/nothing listens there/),
  })
  expect(traces).toHaveLength(3)
})

test('a host that has answered is waited for as long as any', async () => {
  const traces: RequestTrace[] = []
  const server = await startFaultyRegistry()
  server.addManifest('app', '1', MANIFEST)
  const client = openClient({onRequest: trace => traces.push(trace)})
  const repository = client.repository(`${server.host}/app`, {access: 'pull'})
  await repository.resolve('1')
  await server[Symbol.asyncDispose]()
  traces.length = 0
  await expect(repository.resolve('1')).rejects.toMatchObject({code: 'unavailable'})
  expect(traces).toHaveLength(FAST_RETRY.attempts)
})
