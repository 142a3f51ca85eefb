// The snapshots service over a real socket, with ordinary snapshots on disk: what containerd sends, and what nobody should.

import {connect} from 'node:net'
import {join} from 'node:path'
import type {DescMessage, DescMethodUnary, MessageInitShape, MessageShape} from '@bufbuild/protobuf'
import * as grpc from '@grpc/grpc-js'
import {describe, expect, it, onTestFinished} from 'vitest'
import {serveLazyLayers} from '../../src/daemons/lazy-layers/status-service.ts'
import {createGrpcServer} from '../../src/daemons/process/grpc-server.ts'
import {serveSnapshots} from '../../src/daemons/snapshotter/snapshots-service.ts'
import {openState} from '../../src/daemons/snapshotter/state.ts'
import {openGrpcChannel} from '../../src/lib/containerd/grpc.ts'
import {Snapshots} from '../../src/lib/containerd/proto/snapshots_pb.ts'
import {CodedError} from '../../src/lib/errors/coded-error.ts'
import type {LazyLayerStatus} from '../../src/lib/layer/lazy-layer-status.ts'
import type {StartTiming} from '../../src/lib/layer/start-timing.ts'
import type {LayerMounter} from '../../src/lib/snapshot/ports.ts'
import {createSnapshotter} from '../../src/lib/snapshot/snapshotter.ts'
import {
  announceLayers,
  listLazyLayers,
  listStarts,
} from '../../src/lib/snapshotter-client/snapshotter-client.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const {status} = grpc
const TARGET = 'containerd.io/snapshot.ref'

interface Served {
  readonly address: string
  readonly root: string
  /** Failures that were logged. */
  readonly failures: string[]
  call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    signal?: AbortSignal,
  ): Promise<MessageShape<O>>
  /** The status of a call that must fail. */
  failure<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
  ): Promise<{code: number; details: string}>
  names(...filters: string[]): Promise<string[]>
}

async function serve(
  mounter: Partial<LayerMounter> = {},
  layers: readonly LazyLayerStatus[] = [],
  starts: readonly StartTiming[] = [],
  announce: (labels: Readonly<Record<string, string>>) => void = () => {},
): Promise<Served> {
  const root = await temporaryDirectory()
  const address = join(root, 'a.sock')
  const state = await openState(root)
  const log = {info: () => {}, warn: () => {}, debug: () => {}}
  const refuse = async () => {
    throw new CodedError('unsupported', 'Cannot mount lazily')
  }
  const snapshotter = createSnapshotter({
    ...state,
    mounter: {
      mount: refuse,
      check: refuse,
      unmount: async () => {},
      share: () => {},
      expectStart: () => {},
      expectReads: () => {},
      ...mounter,
    },
    disk: {makeRoom: async () => {}, tidy: async () => {}},
    overlayOptions: ['index=off'],
    log,
    now: () => new Date(1_700_000_000_123),
  })
  const failures: string[] = []
  const server = createGrpcServer((method, error) => failures.push(`${method}: ${(error as Error).message}`))
  serveSnapshots(server, snapshotter, {onCaller: async () => {}})
  serveLazyLayers(server, {
    status: () => layers,
    starts: () => starts,
    announce,
    prune: async () => ({layers: 0, bytes: 0}),
  })
  await server.listen(address)
  const channel = openGrpcChannel(address)
  onTestFinished(async () => {
    channel.close()
    await server[Symbol.asyncDispose]()
    state[Symbol.dispose]()
  })
  const call: Served['call'] = (method, request, signal) =>
    channel.unary(method, request, {headers: {}, signal})
  return {
    address,
    root,
    failures,
    call,
    failure: (method, request) =>
      call(method, request).then(
        () => {
          throw new Error('it succeeded')
        },
        ({code, details}) => ({code, details}),
      ),
    names: async (...filters) => {
      const names: string[] = []
      for await (const {info} of channel.serverStream(Snapshots.method.list, {filters}, {headers: {}})) {
        names.push(...info.map(({name}) => name))
      }
      return names
    },
  }
}

const {prepare, view, mounts, commit, remove, stat, update, usage, cleanup} = Snapshots.method

/** A committed snapshot. */
async function committed({call}: Served, name: string, parent = ''): Promise<void> {
  await call(prepare, {key: `${name}-key`, parent})
  await call(commit, {key: `${name}-key`, name, labels: {made: 'yes'}})
}

describe('the snapshots service', () => {
  it('makes, commits and stacks snapshots', async () => {
    const served = await serve()
    await committed(served, 'one')
    await committed(served, 'two', 'one')
    const {mounts: made} = await served.call(prepare, {key: 'three', parent: 'two', labels: {a: 'b'}})
    const fs = (id: number) => join(served.root, `snapshotter/snapshots/${id}/fs`)
    expect(made).toMatchObject([
      {
        type: 'overlay',
        source: 'overlay',
        options: [
          'index=off',
          `workdir=${join(fs(3), '../work')}`,
          `upperdir=${fs(3)}`,
          `lowerdir=${fs(2)}:${fs(1)}`,
        ],
      },
    ])
    expect((await served.call(mounts, {key: 'three'})).mounts).toEqual(made)
    expect((await served.call(view, {key: 'v', parent: 'one'})).mounts[0]).toMatchObject({
      type: 'bind',
      source: fs(1),
      options: ['ro', 'rbind'],
    })
  })

  it('tells name, parent, kind, labels and times', async () => {
    const served = await serve()
    await committed(served, 'one')
    await served.call(prepare, {key: 'two', parent: 'one', labels: {a: 'b'}})
    const {info} = await served.call(stat, {key: 'two'})
    expect(info).toMatchObject({name: 'two', parent: 'one', kind: 2, labels: {a: 'b'}})
    expect(info!.createdAt).toMatchObject({seconds: 1_700_000_000n, nanos: 123_000_000})
    expect((await served.call(stat, {key: 'one'})).info).toMatchObject({kind: 3, labels: {made: 'yes'}})
  })

  it('changes only the labels that an update mask names', async () => {
    const served = await serve()
    await committed(served, 'one')
    const change = (labels: Record<string, string>, ...paths: string[]) =>
      served.call(update, {info: {name: 'one', labels}, updateMask: {paths}})
    expect((await change({a: '1', 'b.c/d': '2'}, 'labels.a', 'labels.b.c/d')).info!.labels).toEqual({
      made: 'yes',
      a: '1',
      'b.c/d': '2',
    })
    expect((await change({}, 'labels.a')).info!.labels).toEqual({made: 'yes', 'b.c/d': '2'})
    expect((await change({x: 'y'}, 'labels')).info!.labels).toEqual({x: 'y'})
    expect((await served.call(update, {info: {name: 'one', labels: {}}})).info!.labels).toEqual({})
  })

  it('lists more snapshots than fit into one message, and those that filters choose', async () => {
    const served = await serve()
    const all = Array.from({length: 250}, (_, index) => `s${String(index).padStart(3, '0')}`)
    for (const name of all) await served.call(prepare, {key: name})
    expect(await served.names()).toEqual(all)
    expect(await served.names('name==s007', 'name~=/^s00[12]$/')).toEqual(['s001', 's002', 's007'])
    expect(await served.names('kind==committed')).toEqual([])
  })

  it('counts space, and forgets snapshots with their directories', async () => {
    const served = await serve()
    await committed(served, 'one')
    await served.call(prepare, {key: 'two', parent: 'one'})
    expect((await served.call(usage, {key: 'two'})).inodes).toBe(1n)
    expect((await served.failure(remove, {key: 'one'})).code).toBe(status.FAILED_PRECONDITION)
    await served.call(remove, {key: 'two'})
    await served.call(remove, {key: 'one'})
    await served.call(cleanup, {})
    expect(await served.names()).toEqual([])
  })

  it('says that a lazily mounted layer exists, as containerd expects it', async () => {
    const served = await serve({mount: async () => {}, check: async () => {}})
    const failure = await served.failure(prepare, {key: 'k', labels: {[TARGET]: 'layer'}})
    expect(failure).toEqual({code: status.ALREADY_EXISTS, details: 'Target snapshot "layer" exists'})
    expect(await served.names()).toEqual(['layer'])
    expect((await served.call(usage, {key: 'layer'})).size).toBe(0n)
  })

  it('gives a mount up when its caller does', async () => {
    let began = (): void => {}
    const waiting = new Promise<void>(resolve => (began = resolve))
    let aborted = (): void => {}
    const ended = new Promise<void>(resolve => (aborted = resolve))
    const served = await serve({
      mount: (_, __, signal) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => {
            aborted()
            reject(signal.reason)
          })
          began()
        }),
    })
    const abort = new AbortController()
    const call = served.call(prepare, {key: 'k', labels: {[TARGET]: 'layer'}}, abort.signal)
    await waiting
    abort.abort()
    await expect(call).rejects.toThrow()
    await ended
  })
})

describe('requests that cannot be answered get a status, and the daemon goes on', () => {
  const check = (
    name: string,
    code: keyof typeof status,
    fail: (served: Served) => Promise<{code: number; details: string}>,
  ) =>
    it(`${name}: ${code}`, async () => {
      const served = await serve()
      await committed(served, 'one')
      const {code: found, details} = await fail(served)
      expect(status[found]).toBe(code)
      expect(details).toMatch(/^(Cannot|Target) /)
      expect(await served.names()).toContain('one')
    })

  check('a missing parent', 'NOT_FOUND', ({failure}) => failure(prepare, {key: 'k', parent: 'nosuch'}))
  check('a missing snapshot', 'NOT_FOUND', ({failure}) => failure(stat, {key: 'nosuch'}))
  check('mounts of a missing one', 'NOT_FOUND', ({failure}) => failure(mounts, {key: 'nosuch'}))
  check('mounts of a committed one', 'FAILED_PRECONDITION', ({failure}) => failure(mounts, {key: 'one'}))
  check('the same key twice', 'ALREADY_EXISTS', ({failure}) => failure(view, {key: 'one', parent: 'one'}))
  check('an empty key', 'INVALID_ARGUMENT', ({failure}) => failure(prepare, {key: ''}))
  check('a committed one again', 'FAILED_PRECONDITION', ({failure}) =>
    failure(commit, {key: 'one', name: 'x'}),
  )
  check('a commit of nothing', 'NOT_FOUND', ({failure}) => failure(commit, {key: 'nosuch', name: 'x'}))
  check('an update without info', 'INVALID_ARGUMENT', ({failure}) => failure(update, {}))
  check('an update of the parent', 'INVALID_ARGUMENT', ({failure}) =>
    failure(update, {info: {name: 'one', parent: 'x'}, updateMask: {paths: ['parent']}}),
  )
  check('a huge label', 'INVALID_ARGUMENT', ({failure}) =>
    failure(prepare, {key: 'k', labels: {a: 'x'.repeat(5000)}}),
  )

  it('names of any length, without repeating them in full', async () => {
    const served = await serve()
    const {code, details} = await served.failure(prepare, {key: 'k', parent: 'é'.repeat(1_000_000)})
    expect(code).toBe(status.NOT_FOUND)
    expect(details.length).toBeLessThan(5000)
    await committed(served, 'one')
  })

  it('a malformed filter', async () => {
    const served = await serve()
    await expect(served.names('name==a b')).rejects.toMatchObject({code: status.INVALID_ARGUMENT})
    await expect(served.names('name~=/(/')).rejects.toMatchObject({code: status.INVALID_ARGUMENT})
    expect(await served.names()).toEqual([])
  })

  it('bytes that are no message, methods that there are not, and no gRPC at all', async () => {
    const served = await serve()
    const client = new grpc.Client(`unix:${served.address}`, grpc.credentials.createInsecure())
    onTestFinished(() => client.close())
    const same = (bytes: Buffer) => bytes
    const raw = (path: string, bytes: Buffer) =>
      new Promise<number | undefined>(resolve => {
        client.makeUnaryRequest(path, same, same, bytes, failure => resolve(failure?.code))
      })
    const service = `/${Snapshots.typeName}`
    expect(await raw(`${service}/Prepare`, Buffer.alloc(100, 0xff))).not.toBe(status.OK)
    expect(await raw(`${service}/Nosuch`, Buffer.alloc(0))).toBe(status.UNIMPLEMENTED)
    await new Promise<void>(resolve => {
      const socket = connect(served.address, () => socket.end('GET / HTTP/1.1\r\n\r\n'))
      socket.on('error', () => {}).resume()
      socket.on('close', () => resolve())
    })
    await committed(served, 'one')
  })

  it('many requests at once, for the same key', async () => {
    const served = await serve()
    const results = await Promise.allSettled(
      Array.from({length: 50}, () => served.call(prepare, {key: 'same'})),
    )
    expect(results.filter(result => result.status === 'fulfilled')).toHaveLength(1)
    expect(await served.names()).toEqual(['same'])
  })
})

describe('the status of lazy layers', () => {
  const layer: LazyLayerStatus = {
    mountpoint: '/m/1/fs',
    reference: 'docker.io/library/a:1',
    digest: 'sha256:aa',
    tocDigest: 'sha256:bb',
    lazy: true,
    format: 'estargz',
    backend: 'erofs',
    size: 2 ** 40,
    fetched: 17,
    deviceSize: 4096,
    present: 0,
    prefetchSize: 5,
    requests: 3,
    errors: 1,
    lastError: 'Cannot reach it',
    hits: 12,
    prefetchedUnread: 2 ** 33,
  }
  const refused: LazyLayerStatus = {
    mountpoint: '/m/0/fs',
    reference: 'docker.io/library/b:1',
    digest: 'sha256:cc',
    lazy: false,
    reason: 'Cannot find a TOC',
    size: 0,
    fetched: 0,
    deviceSize: 0,
    present: 0,
    prefetchSize: 0,
    requests: 0,
    errors: 0,
  }

  it('reaches clients as it is, by mountpoint', async () => {
    const {address} = await serve({}, [layer, refused])
    expect(await listLazyLayers({address})).toEqual([refused, layer])
    expect(await listLazyLayers({address, reference: layer.reference})).toEqual([layer])
    expect(await listLazyLayers({address, reference: 'nosuch'})).toEqual([])
  })

  it('of many layers comes in several messages', async () => {
    const layers = Array.from({length: 230}, (_, index) => ({...layer, mountpoint: `/m/${1000 + index}`}))
    const {address} = await serve({}, layers)
    expect(await listLazyLayers({address: `unix://${address}`})).toEqual(layers)
  })

  it('has beside it where the time of starts went', async () => {
    const span = {layer: layer.digest, step: 'toc', fromMs: 1.5, toMs: 3, bytes: 7} as const
    const start = {reference: 'app', beganAt: 1.5e12, layers: [layer.digest], spans: [span], dropped: 2}
    const {address} = await serve({}, [], [start, {...start, reference: 'other', spans: []}])
    expect(await listStarts({address})).toEqual([start, {...start, reference: 'other', spans: []}])
  })

  it('is told of what will be asked for, in labels that a snapshot can have', async () => {
    const told: unknown[] = []
    const {address} = await serve({}, [], [], labels => void told.push(labels))
    const labels = {a: 'b', long: 'x'.repeat(4000)}
    await announceLayers(labels, {address})
    expect(told).toEqual([labels])
    const many = Object.fromEntries(Array.from({length: 257}, (_, index) => [`label ${index}`, '']))
    await expect(announceLayers(many, {address})).rejects.toThrow('Cannot use labels')
    await expect(announceLayers({a: 'x'.repeat(4096)}, {address})).rejects.toThrow('Cannot use labels')
    expect(told).toHaveLength(1)
  })

  it('is unavailable where no snapshotter is', async () => {
    const address = join(await temporaryDirectory(), 'none.sock')
    await expect(listLazyLayers({address})).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining(address),
    })
  })

  it('is not to be had from another implementation', async () => {
    const address = join(await temporaryDirectory(), 'other.sock')
    const server = createGrpcServer(() => {})
    await server.listen(address)
    onTestFinished(() => server[Symbol.asyncDispose]())
    await expect(listLazyLayers({address})).rejects.toMatchObject({code: 'unsupported'})
  })
})
