// As much of containerd as a lazy pull talks to, so that a build needs none: it believes everything, and its snapshotter
// brings every layer. It is there for warm-code.ts alone; tests have the real one.

import {create, type DescMethod, type DescService, fromBinary, toBinary} from '@bufbuild/protobuf'
import * as grpc from '@grpc/grpc-js'
import {Content} from '../src/lib/containerd/proto/content_pb.ts'
import {Images} from '../src/lib/containerd/proto/images_pb.ts'
import {Introspection} from '../src/lib/containerd/proto/introspection_pb.ts'
import {Leases} from '../src/lib/containerd/proto/leases_pb.ts'
import {Snapshots} from '../src/lib/containerd/proto/snapshots_pb.ts'
import {Version} from '../src/lib/containerd/proto/version_pb.ts'

/** Answers a request; of a stream, each one, with what the stream has had so far. Throws a gRPC failure. */
// biome-ignore lint/suspicious/noExplicitAny: requests of every method pass through here
type Handler = (request: any, received: Buffer[]) => object

/** Listens on a unix socket until it is disposed. */
export async function startWarmContainerd(address: string): Promise<Disposable> {
  const server = new grpc.Server()
  for (const [service, handlers] of createServices()) {
    const methods = service.methods.filter(({localName}) => localName in handlers)
    server.addService(
      Object.fromEntries(methods.map(method => [method.localName, definitionOf(service, method)])),
      Object.fromEntries(
        methods.map(method => [method.localName, serve(method, handlers[method.localName]!)]),
      ),
    )
  }
  await new Promise<void>((resolve, reject) => {
    const credentials = grpc.ServerCredentials.createInsecure()
    server.bindAsync(`unix:${address}`, credentials, error => (error ? reject(error) : resolve()))
  })
  return {[Symbol.dispose]: () => server.forceShutdown()}
}

function createServices(): ReadonlyArray<readonly [DescService, Readonly<Record<string, Handler>>]> {
  const blobs = new Map<string, {readonly bytes: Buffer; readonly labels: Record<string, string>}>()
  const snapshots = new Set<string>()
  const blobOf = (digest: string) => found(blobs.get(digest))
  const nothing = () => ({})
  return [
    [Version, {version: () => ({version: 'v2.1.4'})}],
    [
      Introspection,
      {
        plugins: () => ({
          plugins: [{type: 'io.containerd.snapshotter.v1', id: 'stargz', exports: {address: '/nonexistent'}}],
        }),
      },
    ],
    [Leases, {list: nothing, create: nothing, addResource: nothing, delete: nothing}],
    [Images, {create: ({image}) => ({image})}],
    [
      Snapshots,
      {
        prepare({labels}) {
          snapshots.add(labels['containerd.io/snapshot.ref'])
          throw failure(grpc.status.ALREADY_EXISTS)
        },
        stat: ({key}) => ({
          info: found(
            snapshots.has(key) ? {name: key, labels: {'containerd.io/snapshot/remote': 'yes'}} : undefined,
          ),
        }),
      },
    ],
    [
      Content,
      {
        info({digest}) {
          const {bytes, labels} = blobOf(digest)
          return {info: {digest, size: BigInt(bytes.length), labels}}
        },
        update: ({info}) => ({info}),
        read: ({digest}) => ({data: blobOf(digest).bytes}),
        write({action, offset, data, expected, labels}, received) {
          received.push(Buffer.from(data))
          // A commit.
          if (action === 2) blobs.set(expected, {bytes: Buffer.concat(received), labels})
          return {action, offset: offset + BigInt(data.length)}
        },
      },
    ],
  ]
}

function serve({methodKind}: DescMethod, handler: Handler): grpc.UntypedHandleCall {
  const attempt = (request: unknown, received: Buffer[], answer: (message: object) => void) => {
    try {
      answer(handler(request, received))
    } catch (error) {
      return error as grpc.ServiceError
    }
    return null
  }
  if (methodKind === 'unary') {
    const unary: grpc.handleUnaryCall<unknown, object> = ({request}, callback) => {
      let message = {}
      const error = attempt(request, [], answer => (message = answer))
      callback(error, message)
    }
    return unary
  }
  if (methodKind === 'server_streaming') {
    const stream: grpc.handleServerStreamingCall<unknown, object> = call => {
      attempt(call.request, [], answer => call.write(answer))
      call.end()
    }
    return stream
  }
  const duplex: grpc.handleBidiStreamingCall<unknown, object> = call => {
    const received: Buffer[] = []
    call.on('data', request => attempt(request, received, answer => call.write(answer)))
    call.on('end', () => call.end())
  }
  return duplex
}

function definitionOf(
  service: DescService,
  {name, methodKind, input, output}: DescMethod,
): grpc.MethodDefinition<unknown, Record<string, unknown>> {
  return {
    path: `/${service.typeName}/${name}`,
    requestStream: methodKind === 'bidi_streaming',
    responseStream: methodKind !== 'unary',
    requestDeserialize: bytes => fromBinary(input, bytes),
    requestSerialize: () => Buffer.alloc(0),
    responseDeserialize: bytes => fromBinary(output, bytes),
    responseSerialize: message => Buffer.from(toBinary(output, create(output, message))),
  }
}

function found<Value>(value: Value | undefined): Value {
  if (value === undefined) throw failure(grpc.status.NOT_FOUND)
  return value
}

function failure(code: number): Error {
  return Object.assign(new Error('warm-up'), {code, details: 'warm-up'})
}
