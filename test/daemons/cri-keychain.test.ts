// Credentials caught between a kubelet and the image service: nothing changes on the way, and only what is owed is known.

import {join} from 'node:path'
import {create, type DescMessage, type MessageInitShape, toBinary} from '@bufbuild/protobuf'
import * as grpc from '@grpc/grpc-js'
import {describe, expect, it, onTestFinished} from 'vitest'
import {createGrpcServer} from '../../src/daemons/process/grpc-server.ts'
import {createCriKeychain} from '../../src/daemons/snapshotter/cri-keychain.ts'
import {
  type AuthConfigSchema,
  PullImageRequestSchema,
  RemoveImageRequestSchema,
} from '../../src/daemons/snapshotter/proto/image_service_pb.ts'
import type {Keychain} from '../../src/lib/registry/keychain.ts'
import {temporaryDirectory} from '../support/temporary.ts'

interface Stage {
  readonly keychain: Keychain
  /** What the image service saw. */
  readonly seen: {readonly path: string; readonly bytes: Buffer; readonly metadata: grpc.Metadata}[]
  /** A kubelet's call, as bytes; throws the failure that came back. */
  call(path: string, bytes: Uint8Array): Promise<Buffer>
  pull(image: string, auth?: MessageInitShape<typeof AuthConfigSchema>): Promise<Buffer>
  remove(image: string): Promise<Buffer>
  /** The image service's next answer is this failure. */
  failNext(code: grpc.status, details: string): void
}

const same = (bytes: Buffer) => bytes
const encode = <T extends DescMessage>(schema: T, message: MessageInitShape<T>) =>
  toBinary(schema, create(schema, message))

async function setUp({withService = true, inUse = (): string[] => []} = {}): Promise<Stage> {
  const directory = await temporaryDirectory()
  const servicePath = join(directory, 'containerd.sock')
  const listenPath = join(directory, 'cri.sock')
  const seen: Stage['seen'] = []
  let failure: Partial<grpc.ServiceError> | undefined

  const service = new grpc.Server()
  for (const version of ['v1', 'v1alpha2']) {
    for (const method of ['ListImages', 'ImageStatus', 'PullImage', 'RemoveImage', 'ImageFsInfo']) {
      const path = `/runtime.${version}.ImageService/${method}`
      const answer: grpc.handleUnaryCall<Buffer, Buffer> = (call, reply) => {
        seen.push({path, bytes: call.request, metadata: call.metadata})
        if (failure) reply(failure)
        else reply(null, Buffer.from(`answer to ${method}`))
        failure = undefined
      }
      service.register(path, answer, same, same, 'unary')
    }
  }
  if (withService) {
    await new Promise<void>((resolve, reject) =>
      service.bindAsync(`unix:${servicePath}`, grpc.ServerCredentials.createInsecure(), error =>
        error ? reject(error) : resolve(),
      ),
    )
  }
  const keychain = createCriKeychain(servicePath, inUse)
  const proxy = createGrpcServer(() => {})
  keychain.serve(proxy)
  await proxy.listen(listenPath)
  const kubelet = new grpc.Client(`unix:${listenPath}`, grpc.credentials.createInsecure())
  onTestFinished(async () => {
    kubelet.close()
    keychain[Symbol.dispose]()
    await proxy[Symbol.asyncDispose]()
    service.forceShutdown()
  })
  const metadata = new grpc.Metadata()
  metadata.set('x-request', 'kept')
  const call: Stage['call'] = (path, bytes) =>
    new Promise((resolve, reject) => {
      kubelet.makeUnaryRequest(path, same, same, Buffer.from(bytes), metadata, (error, answer) =>
        error ? reject(error) : resolve(answer!),
      )
    })
  return {
    keychain,
    seen,
    call,
    pull: (image, auth) =>
      call(
        '/runtime.v1.ImageService/PullImage',
        encode(PullImageRequestSchema, {image: {image}, ...(auth ? {auth} : {})}),
      ),
    remove: image =>
      call('/runtime.v1.ImageService/RemoveImage', encode(RemoveImageRequestSchema, {image: {image}})),
    failNext: (code, details) => {
      failure = {code, details}
    },
  }
}

const PASSWORD = {username: 'alice', password: 'pw'}

describe('the image service behind the keychain', () => {
  it.each(['v1', 'v1alpha2'])(
    'gets every request of %s as it is, and its answers come back',
    async version => {
      const {call, seen} = await setUp()
      for (const method of ['ListImages', 'ImageStatus', 'PullImage', 'RemoveImage', 'ImageFsInfo']) {
        const path = `/runtime.${version}.ImageService/${method}`
        const bytes = Buffer.from('\x7a\x03abc', 'latin1')
        expect(String(await call(path, bytes))).toBe(`answer to ${method}`)
        expect(seen.at(-1)).toMatchObject({path, bytes})
        expect(seen.at(-1)!.metadata.get('x-request')).toEqual(['kept'])
      }
    },
  )

  it('gets bytes that are no message at all', async () => {
    const {call, seen} = await setUp()
    const bytes = Buffer.alloc(50, 0xff)
    await call('/runtime.v1.ImageService/PullImage', bytes)
    expect(seen[0]!.bytes).toEqual(bytes)
  })

  it('has its failures passed on', async () => {
    const {pull, failNext, keychain} = await setUp()
    failNext(grpc.status.NOT_FOUND, 'no such image')
    await expect(pull('a.example/app:1', PASSWORD)).rejects.toMatchObject({
      code: grpc.status.NOT_FOUND,
      details: 'no such image',
    })
    expect(await keychain.find('a.example', 'app')).toBeDefined()
  })

  it('is unavailable while it does not run, and the caller learns that', async () => {
    const {pull} = await setUp({withService: false})
    await expect(pull('a.example/app:1')).rejects.toMatchObject({code: grpc.status.UNAVAILABLE})
  })

  it('is asked for nothing else', async () => {
    const {call} = await setUp()
    await expect(call('/runtime.v1.RuntimeService/Version', Buffer.alloc(0))).rejects.toMatchObject({
      code: grpc.status.UNIMPLEMENTED,
    })
  })
})

describe('credentials', () => {
  const kept = (
    name: string,
    auth: MessageInitShape<typeof AuthConfigSchema>,
    expected: object | undefined,
  ) =>
    it(`of a pull are kept: ${name}`, async () => {
      const {pull, keychain} = await setUp()
      await pull('a.example/team/app:1', auth)
      expect(await keychain.find('a.example', 'team/app')).toEqual(expected)
    })

  kept('a password', PASSWORD, {kind: 'password', ...PASSWORD})
  kept(
    'both in one',
    {auth: Buffer.from('a:b:c').toString('base64')},
    {
      kind: 'password',
      username: 'a',
      password: 'b:c',
    },
  )
  kept('an identity token', {identityToken: 't'}, {kind: 'identity', token: 't'})
  kept('a registry token', {registryToken: 't'}, {kind: 'bearer', token: 't'})
  kept(
    'for this server',
    {...PASSWORD, serverAddress: 'https://a.example/v2/'},
    {
      kind: 'password',
      ...PASSWORD,
    },
  )
  kept('not those for another server', {...PASSWORD, serverAddress: 'b.example'}, undefined)
  kept('nothing', {}, undefined)

  it('are for their repository on their registry alone', async () => {
    const {pull, keychain} = await setUp()
    await pull('debian', PASSWORD)
    expect(await keychain.find('docker.io', 'library/debian')).toBeDefined()
    expect(await keychain.find('docker.io', 'library/redis')).toBe(undefined)
    expect(await keychain.find('mirror.example', 'library/debian')).toBe(undefined)
  })

  it('are those of the last pull of the repository', async () => {
    const {pull, keychain} = await setUp()
    await pull('a.example/app:1', PASSWORD)
    await pull('a.example/app:2', {...PASSWORD, username: 'bob'})
    expect(await keychain.find('a.example', 'app')).toMatchObject({username: 'bob'})
    await pull('a.example/app:1', {...PASSWORD, username: 'carol'})
    expect(await keychain.find('a.example', 'app')).toMatchObject({username: 'carol'})
  })

  it('are dropped when the image is removed, or pulled without any', async () => {
    const {pull, remove, keychain} = await setUp()
    await pull('a.example/app:1', PASSWORD)
    await remove('a.example/app:1')
    expect(await keychain.find('a.example', 'app')).toBe(undefined)
    await pull('a.example/app:1', PASSWORD)
    await pull('a.example/app:1')
    expect(await keychain.find('a.example', 'app')).toBe(undefined)
  })

  it('stay as long as a layer of a removed image is mounted, for another image', async () => {
    let mounted = ['b.example/app:1', 'a.example/app:1']
    const {pull, remove, keychain} = await setUp({inUse: () => mounted})
    await pull('a.example/app:1', PASSWORD)
    await remove('a.example/app:1')
    expect(await keychain.find('a.example', 'app')).toBeDefined()
    mounted = ['b.example/app:1']
    expect(await keychain.find('a.example', 'app')).toBeUndefined()
  })

  it('stay when something else is removed', async () => {
    const {pull, remove, keychain} = await setUp()
    await pull('a.example/app:1', PASSWORD)
    await remove(`sha256:${'a'.repeat(64)}`)
    await remove('a.example/app:2')
    expect(await keychain.find('a.example', 'app')).toBeDefined()
  })
})
