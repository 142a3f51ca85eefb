// Connecting: what is wrong with a socket is told apart, and messages say which socket and namespace.

import {chmod, writeFile} from 'node:fs/promises'
import {createServer, type Socket} from 'node:net'
import {join} from 'node:path'
import {describe, expect, it, onTestFinished} from 'vitest'
import {type ConnectOptions, connectContainerd} from '../../src/lib/containerd/client.ts'
import {Images} from '../../src/lib/containerd/proto/images_pb.ts'
import {codeOf, type ErrorCode, messageOf} from '../../src/lib/errors/coded-error.ts'
import {startFakeContainerd} from '../support/fake-containerd.ts'
import {temporaryDirectory} from '../support/temporary.ts'

async function checkRefused(options: ConnectOptions, code: ErrorCode, message: RegExp): Promise<void> {
  const error = await connectContainerd(options).then(
    client => client[Symbol.dispose](),
    failure => failure,
  )
  expect({code: codeOf(error), message: messageOf(error)}).toEqual({
    code,
    message: expect.stringMatching(message),
  })
}

async function listen(onConnection: (socket: Socket) => void): Promise<string> {
  const address = join(await temporaryDirectory(), 'a.sock')
  const server = createServer(socket => void socket.on('error', () => {}))
  server.on('connection', onConnection)
  await new Promise<void>(resolve => server.listen(address, resolve))
  onTestFinished(() => void server.close())
  return address
}

describe('connecting', () => {
  it('tells the version', async () => {
    await using fake = await startFakeContainerd({version: '1.6.20~ds1'})
    using client = await connectContainerd({address: fake.address})
    expect(client.version).toBe('1.6.20~ds1')
    expect(client.namespace).toBe('default')
  })

  it('takes addresses with unix://', async () => {
    await using fake = await startFakeContainerd()
    using client = await connectContainerd({address: `unix://${fake.address}`})
    expect(client.address).toBe(fake.address)
  })

  it.each(['v2.1.4', '1.7.0', '1.10.0', 'unknown', 'v3.0.0-dev'])('accepts version %s', async version => {
    await using fake = await startFakeContainerd({version})
    using client = await connectContainerd({address: fake.address})
    expect(client.version).toBe(version)
  })

  it.each(['1.5.13', 'v1.4.0', '0.2.0'])('refuses version %s', async version => {
    await using fake = await startFakeContainerd({version})
    await checkRefused({address: fake.address}, 'unsupported', new RegExp(`${version}.*older than 1\\.6`))
  })

  it('says that there is no socket', async () => {
    const address = join(await temporaryDirectory(), 'none.sock')
    await checkRefused({address}, 'unavailable', /there is no socket ".*none\.sock"/)
  })

  it('says that nobody listens', async () => {
    const {spawnSync} = await import('node:child_process')
    const address = join(await temporaryDirectory(), 'dead.sock')
    // A process that dies without tidying up leaves its socket.
    const script = `require('net').createServer().listen(${JSON.stringify(address)}, () => process.kill(process.pid, 9))`
    spawnSync(process.execPath, ['-e', script])
    await checkRefused({address}, 'unavailable', /nothing listens on the socket/)
  })

  it('says that a file is no socket', async () => {
    const address = join(await temporaryDirectory(), 'file')
    await writeFile(address, '')
    await checkRefused({address}, 'failed-precondition', /is not a socket/)
  })

  it.skipIf(process.getuid?.() !== 0)('says that this user may not', async () => {
    await using fake = await startFakeContainerd()
    await chmod(fake.address, 0o600)
    process.seteuid!(65534)
    try {
      await checkRefused({address: fake.address}, 'permission-denied', /no permission to use the socket/)
    } finally {
      process.seteuid!(0)
    }
  })

  it('says that something else listens', async () => {
    const address = await listen(socket => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))
    await checkRefused({address}, 'failed-precondition', /does not speak containerd's API/)
  })

  it('says that another gRPC server listens', async () => {
    await using fake = await startFakeContainerd({without: ['Version']})
    await checkRefused({address: fake.address}, 'failed-precondition', /does not speak containerd's API/)
  })

  it('gives up on what never answers', async () => {
    const address = await listen(() => {})
    await checkRefused({address, connectTimeoutMs: 50}, 'unavailable', /did not answer within 50 ms/)
  })

  it('stops when aborted', async () => {
    const address = await listen(() => abort.abort())
    const abort = new AbortController()
    await checkRefused({address, signal: abort.signal}, 'cancelled', /aborted/)
  })

  it.each(['relative.sock', '', 'tcp://127.0.0.1:1'].filter(Boolean))(
    'refuses the address %j',
    async address => {
      await checkRefused({address}, 'invalid-argument', /absolute path of a unix socket/)
    },
  )

  it.each(['a b', '-a', 'a--b', 'a/b', 'a\nb', 'x'.repeat(77)])(
    'refuses the namespace %j',
    async namespace => {
      await checkRefused({address: '/nowhere', namespace}, 'invalid-argument', /as a containerd namespace/)
    },
  )
})

describe('a call that fails', () => {
  const get = async (fake: {address: string}, timeoutMs?: number) => {
    using client = await connectContainerd({address: fake.address, namespace: 'k8s.io', timeoutMs})
    return await client
      .call(Images.method.get, {name: 'x'}, {doing: 'read the image "x"'})
      .catch(error => error)
  }

  it.each([
    [3, 'invalid-argument'],
    [4, 'unavailable'],
    [5, 'not-found'],
    [6, 'already-exists'],
    [7, 'permission-denied'],
    [8, 'unavailable'],
    [9, 'failed-precondition'],
    [12, 'unsupported'],
    [13, 'internal'],
    [14, 'unavailable'],
    [15, 'corrupt'],
    [16, 'unauthenticated'],
  ] as const)('with gRPC status %i has the code %s', async (status, code) => {
    await using fake = await startFakeContainerd()
    fake.failNext('Images.Get', status, 'because')
    expect(codeOf(await get(fake))).toBe(code)
  })

  it('says what was done, where, and why not', async () => {
    await using fake = await startFakeContainerd()
    expect(messageOf(await get(fake))).toBe(
      `Cannot read the image "x" (containerd "${fake.address}", namespace "k8s.io"): image "x": not found`,
    )
  })

  it('says when --timeout is over', async () => {
    await using fake = await startFakeContainerd()
    fake.onCall = method => (method === 'Images.Get' ? new Promise<void>(() => {}) : undefined)
    const error = await get(fake, 100)
    expect(codeOf(error)).toBe('unavailable')
    expect(messageOf(error)).toMatch(/longer than --timeout allows/)
  })

  it('is unavailable when containerd dies', async () => {
    await using fake = await startFakeContainerd()
    fake.onCall = method => {
      if (method === 'Images.Get') fake.crash()
    }
    expect(codeOf(await get(fake))).toBe('unavailable')
  })
})
