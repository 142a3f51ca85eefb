import {mkdir, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {expect, test} from 'vitest'
import type {RegistryOptions} from '../../src/lib/registry/registry.ts'
import {type Certificate, makeCertificate} from '../support/certificate.ts'
import {createUser} from '../support/ctr-remote.ts'
import type {FaultyRegistry} from '../support/faulty-registry.ts'
import {describeWith} from '../support/requires.ts'
import {temporaryDirectory} from '../support/temporary.ts'
import {openClient, readAll, sampleBytes, startRegistry} from './registry-scene.ts'

const NO_RETRY = {retry: {attempts: 1}}

async function readFrom(server: FaultyRegistry, options: RegistryOptions): Promise<number> {
  const descriptor = server.addBlob('app', sampleBytes(100))
  const repository = openClient(options).repository(`${server.host}/app`, {access: 'pull'})
  return (await readAll(await repository.openBlob(descriptor))).length
}

describeWith(['openssl'], 'a registry with TLS', () => {
  async function start(clientCa?: Certificate): Promise<{server: FaultyRegistry; certificate: Certificate}> {
    const certificate = await makeCertificate(await temporaryDirectory())
    const {cert, key} = certificate
    const tls = clientCa ? {cert, key, clientCa: clientCa.cert} : {cert, key}
    return {server: await startRegistry({tls}), certificate}
  }

  test('is trusted by its authority', async () => {
    const {server, certificate} = await start()
    expect(await readFrom(server, {tlscacert: certificate.certFile})).toBe(100)
  })

  test('is trusted by an authority that the system alone knows, and not without', async () => {
    const {server, certificate} = await start()
    server.addBlob('app', sampleBytes(100))
    const hostsDir = await temporaryDirectory()
    await mkdir(join(hostsDir, '_default'))
    await writeFile(join(hostsDir, '_default/hosts.toml'), `server = "https://${server.host}"\n`)
    const pull = async (environment: Readonly<Record<string, string>>) => {
      await using user = await createUser({NODE_EXTRA_CA_CERTS: '', ...environment})
      return user.run('image', 'pull', '--hosts-dir', hostsDir, `${server.host}/app:none`)
    }
    const known = await pull({SSL_CERT_FILE: certificate.certFile})
    // It gets as far as an answer about the image.
    expect(known).toMatchObject({exitCode: 3, stderr: expect.stringContaining('none')})
    const unknown = await pull({SSL_CERT_FILE: '/dev/null', SSL_CERT_DIR: '/nonexistent'})
    expect(unknown).toMatchObject({exitCode: 5, stderr: expect.stringContaining('--tlscacert FILE')})
  })

  test('is trusted by an authority of the system while another is given', async () => {
    const {server, certificate} = await start()
    server.addBlob('app', sampleBytes(100))
    const other = await makeCertificate(await temporaryDirectory())
    await using user = await createUser({NODE_EXTRA_CA_CERTS: '', SSL_CERT_FILE: certificate.certFile})
    const argv = ['image', 'pull', '--tlscacert', other.certFile, `${server.host}/app:none`]
    expect((await user.run(...argv)).exitCode).toBe(3)
  })

  test('is trusted without verification where that is asked for', async () => {
    const {server} = await start()
    expect(await readFrom(server, {skipVerify: true})).toBe(100)
  })

  test('is not trusted otherwise, and the error says what to do', async () => {
    const {server} = await start()
    const other = await makeCertificate(await temporaryDirectory())
    await expect(readFrom(server, {tlscacert: other.certFile})).rejects.toMatchObject({
      code: 'failed-precondition',
      message: /--tlscacert FILE, or --skip-verify/,
    })
    expect(server.requests).toHaveLength(0)
  })

  test('is not trusted under another name', async () => {
    const certificate = await makeCertificate(await temporaryDirectory(), 'DNS:registry.example')
    const server = await startRegistry({tls: certificate})
    await expect(readFrom(server, {tlscacert: certificate.certFile})).rejects.toMatchObject({
      code: 'failed-precondition',
      message: /another name/,
    })
  })

  test('may want a client certificate', async () => {
    const client = await makeCertificate(await temporaryDirectory())
    const {server, certificate} = await start(client)
    const tlscacert = certificate.certFile
    const pair = {tlscert: client.certFile, tlskey: client.keyFile}
    expect(await readFrom(server, {tlscacert, ...pair})).toBe(100)
    await expect(readFrom(server, {tlscacert, ...NO_RETRY})).rejects.toThrow('Cannot read blob')
  })

  test('does not redirect to plain HTTP', async () => {
    const {server, certificate} = await start()
    const open = await startRegistry()
    server.inject({}, {kind: 'redirect', to: `${open.url}/anything`})
    await expect(readFrom(server, {tlscacert: certificate.certFile})).rejects.toMatchObject({
      code: 'permission-denied',
    })
    expect(open.requests).toHaveLength(0)
  })

  test('does not send credentials to a token server without TLS', async () => {
    const {cert, key, certFile} = await makeCertificate(await temporaryDirectory())
    const auth = {kind: 'bearer', username: 'u', password: 'p', realm: 'http://token.example/'} as const
    const server = await startRegistry({tls: {cert, key}, auth})
    const credential = {kind: 'password', username: 'u', password: 'p'} as const
    await expect(readFrom(server, {tlscacert: certFile, credential})).rejects.toMatchObject({
      code: 'unauthenticated',
      message: /without encryption/,
    })
  })

  test('that is spoken to in plain HTTP is recognised', async () => {
    const {server} = await start()
    await expect(readFrom(server, {plainHttp: true, ...NO_RETRY})).rejects.toMatchObject({
      code: 'unavailable',
    })
  })
})

test('a registry without TLS that is spoken to in TLS is recognised', async () => {
  const server = await startRegistry()
  await expect(readFrom(server, {skipVerify: true})).rejects.toMatchObject({
    code: 'failed-precondition',
    message: /--plain-http/,
  })
})
