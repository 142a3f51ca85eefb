// A containerd in this process: version, content, images and leases in memory, on a real unix socket, with the real
// protocol and a garbage collector that follows leases and labels as containerd's does. Needs no root.

import {mkdtemp, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {create, type DescMethod, type DescService, fromBinary, toBinary} from '@bufbuild/protobuf'
import {timestampNow} from '@bufbuild/protobuf/wkt'
import * as grpc from '@grpc/grpc-js'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {Content, type WriteContentRequest} from '../../src/lib/containerd/proto/content_pb.ts'
import {type Image, Images} from '../../src/lib/containerd/proto/images_pb.ts'
import {Leases} from '../../src/lib/containerd/proto/leases_pb.ts'
import {Version} from '../../src/lib/containerd/proto/version_pb.ts'

type Labels = Record<string, string>

interface Blob {
  readonly bytes: Buffer
  labels: Labels
}

/** One namespace; tests look into it and change it at will. */
export interface FakeNamespace {
  readonly blobs: Map<string, Blob>
  readonly images: Map<string, Image>
  readonly leases: Map<string, {labels: Labels; readonly resources: Set<string>}>
  /** Bytes so far by ref, and the lease that keeps them. */
  readonly ingests: Map<string, {bytes: Buffer; readonly lease: string | undefined}>
}

export interface FakeContainerd extends AsyncDisposable {
  readonly address: string
  namespace(name?: string): FakeNamespace
  /** Lets the garbage collector run now. */
  collect(name?: string): void
  /** The next call of a method (`Content.Info`) fails with this gRPC status. */
  failNext(method: string, status: number, details: string): void
  /** Runs before every call; a promise delays it. */
  onCall: ((method: string) => void | Promise<void>) | undefined
  /** Drops all connections, as a crash does. */
  crash(): void
}

class Failure extends Error {
  readonly code: number
  readonly details: string
  constructor(code: number, details: string) {
    super(details)
    this.code = code
    this.details = details
  }
}

interface Context {
  readonly space: FakeNamespace
  readonly lease: string | undefined
}

// biome-ignore lint/suspicious/noExplicitAny: requests of every method pass through here; the proto schema checks them
type Handler = (request: any, context: Context) => unknown

export interface FakeContainerdOptions {
  readonly version?: string
  /** Leaves services out, as something that is no containerd does. */
  readonly without?: readonly string[]
}

export async function startFakeContainerd(options: FakeContainerdOptions = {}): Promise<FakeContainerd> {
  const directory = await mkdtemp(join(tmpdir(), 'ctr-remote-fake-'))
  const address = join(directory, 'containerd.sock')
  const server = new grpc.Server({'grpc.max_receive_message_length': 16 * 1024 * 1024})
  const spaces = new Map<string, FakeNamespace>()
  const failures = new Map<string, Failure>()
  const namespace = (name = 'default'): FakeNamespace => {
    const space = spaces.get(name) ?? {
      blobs: new Map(),
      images: new Map(),
      leases: new Map(),
      ingests: new Map(),
    }
    spaces.set(name, space)
    return space
  }
  const fake: FakeContainerd = {
    address,
    namespace,
    collect: name => collect(namespace(name)),
    failNext: (method, status, details) => void failures.set(method, new Failure(status, details)),
    onCall: undefined,
    crash: () => server.forceShutdown(),
    async [Symbol.asyncDispose]() {
      server.forceShutdown()
      await rm(directory, {recursive: true, force: true})
    },
  }
  const contextOf = (metadata: grpc.Metadata): Context => ({
    space: namespace(metadata.get('containerd-namespace')[0]?.toString()),
    lease: metadata.get('containerd-lease')[0]?.toString(),
  })
  const enter = async (name: string): Promise<void> => {
    await fake.onCall?.(name)
    const failure = failures.get(name)
    failures.delete(name)
    if (failure) throw failure
  }
  const services: ReadonlyArray<readonly [DescService, Record<string, Handler>]> = [
    [Version, {version: () => ({version: options.version ?? 'v2.1.4', revision: ''})}],
    [Content, contentHandlers],
    [Images, imageHandlers],
    [Leases, leaseHandlers],
  ]
  for (const [service, handlers] of services) {
    const short = service.name
    if (options.without?.includes(short)) continue
    const implementation: grpc.UntypedServiceImplementation = {}
    for (const method of service.methods) {
      const handler = handlers[method.localName]
      if (!handler) continue
      const name = `${short}.${method.name}`
      implementation[method.localName] = serve(method, handler, contextOf, () => enter(name))
    }
    server.addService(definitionOf(service, handlers), implementation)
  }
  await new Promise<void>((resolve, reject) => {
    server.bindAsync(`unix:${address}`, grpc.ServerCredentials.createInsecure(), error =>
      error ? reject(error) : resolve(),
    )
  })
  return fake
}

const contentHandlers: Record<string, Handler> = {
  info: ({digest}, {space}) => ({info: infoOf(digest, findBlob(space, digest))}),
  update({info, updateMask}, {space}) {
    const blob = findBlob(space, info.digest)
    for (const path of updateMask.paths as string[]) {
      const key = path.slice('labels.'.length)
      if (info.labels[key]) blob.labels[key] = info.labels[key]
      else delete blob.labels[key]
    }
    return {info: infoOf(info.digest, blob)}
  },
  list: (_, {space}) => [{info: [...space.blobs].map(([digest, blob]) => infoOf(digest, blob))}],
  read({digest, offset, size}, {space}) {
    const {bytes} = findBlob(space, digest)
    const end = size > 0n ? Number(offset + size) : bytes.length
    if (end > bytes.length) throw new Failure(grpc.status.OUT_OF_RANGE, 'read past the end')
    const answers = []
    for (let at = Number(offset); at < end; at += 65536) {
      answers.push({offset: BigInt(at), data: bytes.subarray(at, Math.min(at + 65536, end))})
    }
    return answers
  },
  abort({ref}, {space}) {
    if (!space.ingests.delete(ref)) throw new Failure(grpc.status.NOT_FOUND, `ingest ${ref}: not found`)
    return {}
  },
  listStatuses: (_, {space}) => ({
    statuses: [...space.ingests].map(([ref, {bytes}]) => ({
      ref,
      offset: BigInt(bytes.length),
      updatedAt: timestampNow(),
    })),
  }),
  write: writeSession,
}

/** Called for each message of a write stream, with the stream's own state as `this`. */
function writeSession(this: {ref?: string}, request: WriteContentRequest, {space, lease}: Context): unknown {
  const {ref: name = request.ref} = this
  this.ref = name
  const ingest = space.ingests.get(name) ?? {bytes: Buffer.alloc(0), lease}
  const exists = (): Failure =>
    new Failure(grpc.status.ALREADY_EXISTS, `content ${request.expected}: already exists`)
  if (!space.ingests.has(name)) {
    if (space.blobs.has(request.expected)) throw exists()
    space.ingests.set(name, ingest)
  }
  if (request.action > 0) {
    if (Number(request.offset) !== ingest.bytes.length)
      throw new Failure(grpc.status.OUT_OF_RANGE, 'wrong offset')
    ingest.bytes = Buffer.concat([ingest.bytes, request.data])
  }
  if (request.action === 2) {
    const digest = digestOf(ingest.bytes)
    if (request.expected && digest !== request.expected) {
      throw new Failure(grpc.status.FAILED_PRECONDITION, `unexpected commit digest ${digest}`)
    }
    space.ingests.delete(name)
    if (space.blobs.has(digest)) throw exists()
    space.blobs.set(digest, {bytes: ingest.bytes, labels: {...request.labels}})
    if (lease !== undefined) space.leases.get(lease)?.resources.add(`content ${digest}`)
  }
  return {action: request.action, offset: BigInt(ingest.bytes.length)}
}

const imageHandlers: Record<string, Handler> = {
  get: ({name}, {space}) => ({image: findImage(space, name)}),
  list: (_, {space}) => ({images: [...space.images.values()]}),
  create({image}, {space}) {
    if (space.images.has(image.name))
      throw new Failure(grpc.status.ALREADY_EXISTS, `image "${image.name}": already exists`)
    const stored = {...image, createdAt: timestampNow(), updatedAt: timestampNow()}
    space.images.set(image.name, stored)
    return {image: stored}
  },
  update({image, updateMask}, {space}) {
    const old = findImage(space, image.name)
    const changed = {...old, updatedAt: timestampNow()}
    for (const path of updateMask.paths as ('labels' | 'target')[])
      Object.assign(changed, {[path]: image[path]})
    space.images.set(image.name, changed)
    return {image: changed}
  },
  delete({name, sync}, {space}) {
    findImage(space, name)
    space.images.delete(name)
    if (sync) collect(space)
    return {}
  },
}

const leaseHandlers: Record<string, Handler> = {
  create({id, labels}, {space}) {
    space.leases.set(id, {labels, resources: new Set()})
    return {lease: {id, labels, createdAt: timestampNow()}}
  },
  list: (_, {space}) => ({
    leases: [...space.leases].map(([id, {labels}]) => ({id, labels, createdAt: timestampNow()})),
  }),
  addResource({id, resource}, {space}) {
    const lease = space.leases.get(id)
    if (!lease) throw new Failure(grpc.status.NOT_FOUND, `lease "${id}": not found`)
    lease.resources.add(`${resource.type} ${resource.id}`)
    const ingest = resource.type === 'ingests' ? space.ingests.get(resource.id) : undefined
    if (ingest) space.ingests.set(resource.id, {...ingest, lease: id})
    return {}
  },
  delete({id, sync}, {space}) {
    if (!space.leases.delete(id)) throw new Failure(grpc.status.NOT_FOUND, `lease "${id}": not found`)
    if (sync) collect(space)
    return {}
  },
}

function findBlob(space: FakeNamespace, digest: string): Blob {
  const blob = space.blobs.get(digest)
  if (!blob) throw new Failure(grpc.status.NOT_FOUND, `content ${digest}: not found`)
  return blob
}

function findImage(space: FakeNamespace, name: string): Image {
  const image = space.images.get(name)
  if (!image) throw new Failure(grpc.status.NOT_FOUND, `image "${name}": not found`)
  return image
}

function infoOf(digest: string, {bytes, labels}: Blob): object {
  return {digest, size: BigInt(bytes.length), labels}
}

/** Roots are image targets and what leases name; references are `containerd.io/gc.ref.content` labels. */
function collect(space: FakeNamespace): void {
  const pending = [...space.images.values()].map(image => image.target!.digest)
  for (const {resources} of space.leases.values()) {
    for (const resource of resources) pending.push(resource.slice('content '.length))
  }
  const live = new Set<string>()
  for (let digest = pending.pop(); digest !== undefined; digest = pending.pop()) {
    if (live.has(digest)) continue
    live.add(digest)
    for (const [key, value] of Object.entries(space.blobs.get(digest)?.labels ?? {})) {
      if (key.startsWith('containerd.io/gc.ref.content')) pending.push(value)
    }
  }
  for (const digest of space.blobs.keys()) if (!live.has(digest)) space.blobs.delete(digest)
  for (const [ref, {lease}] of space.ingests) {
    if (lease !== undefined && !space.leases.has(lease)) space.ingests.delete(ref)
  }
}

function definitionOf(service: DescService, handlers: Record<string, Handler>): grpc.ServiceDefinition {
  const methods = service.methods.filter(method => handlers[method.localName])
  return Object.fromEntries(
    methods.map(method => [
      method.localName,
      {
        path: `/${service.typeName}/${method.name}`,
        requestStream: method.methodKind === 'bidi_streaming',
        responseStream: method.methodKind !== 'unary',
        requestDeserialize: (bytes: Buffer) => fromBinary(method.input, bytes),
        requestSerialize: (value: Record<string, unknown>) =>
          Buffer.from(toBinary(method.input, create(method.input, value))),
        responseDeserialize: (bytes: Buffer) => fromBinary(method.output, bytes),
        responseSerialize: (value: Record<string, unknown>) =>
          Buffer.from(toBinary(method.output, create(method.output, value))),
      },
    ]),
  )
}

function serve(
  method: DescMethod,
  handler: Handler,
  contextOf: (metadata: grpc.Metadata) => Context,
  enter: () => Promise<void>,
): grpc.UntypedHandleCall {
  if (method.methodKind === 'unary') {
    const unary: grpc.handleUnaryCall<unknown, unknown> = (call, callback) => {
      enter()
        .then(() => handler(call.request, contextOf(call.metadata)))
        .then(
          answer => callback(null, answer),
          error => callback(error),
        )
    }
    return unary
  }
  if (method.methodKind === 'server_streaming') {
    const stream: grpc.handleServerStreamingCall<unknown, unknown> = call => {
      enter()
        .then(() => {
          for (const answer of handler(call.request, contextOf(call.metadata)) as unknown[])
            call.write(answer)
          call.end()
        })
        .catch(error => call.emit('error', error))
    }
    return stream
  }
  const duplex: grpc.handleBidiStreamingCall<unknown, unknown> = call => {
    const state = {}
    const context = contextOf(call.metadata)
    let last = Promise.resolve()
    call.on('error', () => {})
    call.on('data', request => {
      last = last
        .then(enter)
        .then(() => void call.write(handler.call(state, request, context)))
        .catch(error => void call.emit('error', error))
    })
    call.on('end', () => void last.then(() => call.end()))
  }
  return duplex
}
