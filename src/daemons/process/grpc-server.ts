// gRPC over a unix socket, the serving side: handlers are async functions that throw CodedErrors.

import {once} from 'node:events'
import {chmod} from 'node:fs/promises'
import {createServer, type Socket} from 'node:net'
import {
  create,
  type DescMessage,
  type DescMethod,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf'
import * as grpc from '@grpc/grpc-js'
import {type GrpcFailure, isGrpcFailure} from '../../lib/containerd/grpc.ts'
import {codeOf, describeError, type ErrorCode} from '../../lib/errors/coded-error.ts'
import {peerProcess} from '../../lib/native/system-calls.ts'

/** What a handler knows of its call. */
export interface ServedCall {
  /** Aborted when the caller gives up, or goes away. */
  readonly signal: AbortSignal
  /** The id of the process that has connected, as this one sees it; undefined when that is not known. */
  readonly caller: number | undefined
}

/** The method's implementation: an answer, or for a stream the answers. */
type Handler<M> =
  M extends DescMethodUnary<infer I, infer O>
    ? (request: MessageShape<I>, call: ServedCall) => Promise<MessageInitShape<O>>
    : M extends DescMethodServerStreaming<infer I, infer O>
      ? (request: MessageShape<I>, call: ServedCall) => AsyncIterable<MessageInitShape<O>>
      : never

/** One handler for every method of a service. */
export type Handlers<S extends {readonly method: Record<string, DescMethod>}> = {
  readonly [K in keyof S['method']]: Handler<S['method'][K]>
}

/** A method known by its path alone, answered with the bytes that came from somewhere else. */
export type RawHandler = (request: Buffer, metadata: grpc.Metadata, call: ServedCall) => Promise<Buffer>

/** Disposing lets running calls finish for a moment, then ends them. */
export interface GrpcServer extends AsyncDisposable {
  add<S extends {readonly typeName: string; readonly method: Record<string, DescMethod>}>(
    service: S,
    handlers: Handlers<S>,
  ): void
  /** Serves the unary method at `path` (`/package.Service/Method`) without looking into its messages. */
  addRaw(path: string, handler: RawHandler): void
  /** Serves on a unix socket, for its owner alone. Resolves once callers can connect. */
  listen(socketPath: string): Promise<void>
}

/** How long running calls may take to end when the server does. */
const CLOSE_GRACE_MS = 5_000

/** containerd's own limit for one message, either way (defaults.DefaultMaxRecvMsgSize). */
const MAX_MESSAGE_SIZE = 16 * 1024 * 1024

/** `onFailure` is told of every failed call, with the method's path. */
export function createGrpcServer(onFailure: (method: string, error: unknown) => void): GrpcServer {
  const server = new grpc.Server({
    'grpc.max_receive_message_length': MAX_MESSAGE_SIZE,
    'grpc.max_send_message_length': MAX_MESSAGE_SIZE,
  })

  // A listener of ours, because the library does not tell who has connected.
  const connections = server.createConnectionInjector(grpc.ServerCredentials.createInsecure())
  const listener = createServer(socket => {
    noteCaller(socket)
    connections.injectConnection(socket)
  })

  function fail(path: string, error: unknown, signal: AbortSignal): grpc.ServiceError | GrpcFailure {
    if (!signal.aborted) onFailure(path, error)
    return statusOf(error)
  }

  function addUnary(path: string, codec: Codec, handle: UntypedHandler): void {
    const answer: grpc.handleUnaryCall<unknown, unknown> = (call, reply) => {
      const signal = signalOf(call)
      handle(call.request, {signal, caller: callerOf(call), metadata: call.metadata}).then(
        message => reply(null, message),
        error => reply(fail(path, error, signal)),
      )
    }
    server.register(path, answer, codec.encode, codec.decode, 'unary')
  }

  function addStream(path: string, codec: Codec, handle: UntypedStreamHandler): void {
    const answer: grpc.handleServerStreamingCall<unknown, unknown> = call => {
      const signal = signalOf(call)
      const send = async () => {
        for await (const message of handle(call.request, {
          signal,
          caller: callerOf(call),
          metadata: call.metadata,
        })) {
          if (call.write(message) || signal.aborted) continue
          await new Promise<void>(resolve => {
            call.once('drain', resolve)
            signal.addEventListener('abort', () => resolve(), {once: true})
          })
        }
        call.end()
      }
      send().catch(error => call.emit('error', fail(path, error, signal)))
    }
    server.register(path, answer, codec.encode, codec.decode, 'serverStream')
  }

  return {
    add(service, handlers) {
      for (const [name, method] of Object.entries(service.method)) {
        const path = `/${service.typeName}/${method.name}`
        const handler: unknown = handlers[name]
        if (method.methodKind === 'unary') addUnary(path, codecOf(method), handler as UntypedHandler)
        else addStream(path, codecOf(method), handler as UntypedStreamHandler)
      }
    },
    addRaw(path, handler) {
      addUnary(path, RAW_CODEC, (request, {metadata, ...call}) => handler(request as Buffer, metadata, call))
    },
    async listen(socketPath) {
      listener.listen(socketPath)
      await once(listener, 'listening')
      await chmod(socketPath, 0o600)
    },
    [Symbol.asyncDispose]: () =>
      new Promise(resolve => {
        const timer = setTimeout(() => server.forceShutdown(), CLOSE_GRACE_MS)
        listener.close()
        server.tryShutdown(() => {
          clearTimeout(timer)
          resolve()
        })
      }),
  }
}

/** What the library passes on of a connection is its remote address, of which unix sockets have none. */
const CALLER_PREFIX = 'process '

function noteCaller(socket: Socket): void {
  const {fd} = (socket as unknown as {readonly _handle?: {readonly fd?: number}})._handle ?? {}
  if (fd === undefined || fd < 0) return
  try {
    Object.defineProperty(socket, 'remoteAddress', {value: CALLER_PREFIX + peerProcess(fd)})
  } catch {
    // It has gone already.
  }
}

function callerOf(call: {getPeer(): string}): number | undefined {
  const peer = call.getPeer()
  return peer.startsWith(CALLER_PREFIX) ? Number(peer.slice(CALLER_PREFIX.length)) : undefined
}

interface UntypedCall extends ServedCall {
  readonly metadata: grpc.Metadata
}
type UntypedHandler = (request: unknown, call: UntypedCall) => Promise<unknown>
type UntypedStreamHandler = (request: unknown, call: UntypedCall) => AsyncIterable<unknown>

interface Codec {
  readonly encode: (message: unknown) => Buffer
  readonly decode: (bytes: Buffer) => unknown
}

const RAW_CODEC: Codec = {encode: bytes => bytes as Buffer, decode: bytes => bytes}

function codecOf(method: {readonly input: DescMessage; readonly output: DescMessage}): Codec {
  return {
    encode: message => {
      const bytes = toBinary(method.output, create(method.output, message as MessageInitShape<DescMessage>))
      return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    },
    decode: bytes => fromBinary(method.input, bytes),
  }
}

function signalOf(call: {on(event: 'cancelled', listener: () => void): unknown}): AbortSignal {
  const abort = new AbortController()
  call.on('cancelled', () => abort.abort())
  return abort.signal
}

/** What a caller sees of an error: the status that its code stands for, and the whole story as message. */
function statusOf(error: unknown): grpc.ServiceError | GrpcFailure {
  // Another server's failure is passed on as it is.
  if (isGrpcFailure(error)) return error
  const code = STATUS_OF_CODE[codeOf(error)]
  const details = shorten(describeError(error))
  return Object.assign(new Error(details), {code, details, metadata: new grpc.Metadata()})
}

/** A status travels in a header, and headers have limits; what a request has named may be of any length. */
const MAX_DETAILS_LENGTH = 4096

function shorten(text: string): string {
  return text.length > MAX_DETAILS_LENGTH ? `${text.slice(0, MAX_DETAILS_LENGTH)}…` : text
}

const STATUS_OF_CODE: Readonly<Record<ErrorCode, grpc.status>> = {
  'invalid-argument': grpc.status.INVALID_ARGUMENT,
  'not-found': grpc.status.NOT_FOUND,
  'already-exists': grpc.status.ALREADY_EXISTS,
  'failed-precondition': grpc.status.FAILED_PRECONDITION,
  'permission-denied': grpc.status.PERMISSION_DENIED,
  unauthenticated: grpc.status.UNAUTHENTICATED,
  unavailable: grpc.status.UNAVAILABLE,
  corrupt: grpc.status.DATA_LOSS,
  unsupported: grpc.status.UNIMPLEMENTED,
  cancelled: grpc.status.CANCELLED,
  internal: grpc.status.INTERNAL,
}
