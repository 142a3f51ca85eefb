// gRPC over a unix socket: the one file that knows @grpc/grpc-js as a client. Messages are protobuf-es's.

import {
  create,
  type DescMessage,
  type DescMethodBiDiStreaming,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf'
import * as grpc from '@grpc/grpc-js'
import type {CallOptions} from '../oci/content-store.ts'

/** The numbers of gRPC status codes that callers branch on or translate. */
export const GrpcStatus = grpc.status

/** What a call ends with when it fails; `details` is the server's message. */
export interface GrpcFailure extends Error {
  readonly code: number
  readonly details: string
}

export interface GrpcCallOptions extends CallOptions {
  /** Request headers. */
  readonly headers: Readonly<Record<string, string>>
  /** Epoch ms after which the call fails with DEADLINE_EXCEEDED; never by default. */
  readonly deadline?: number | undefined
}

/** Both directions of a stream. Failures surface from `receive`. */
export interface DuplexCall<I extends DescMessage, O extends DescMessage> {
  /** Copies the message; resolves when the transport can take more: awaiting it bounds memory. */
  send(message: MessageInitShape<I>): Promise<void>
  /** As `send`, for a message that is encoded already. It must not change before it has been answered. */
  sendEncoded(message: Buffer): Promise<void>
  /** The next answer; undefined when the server has ended the stream. One call at a time. */
  receive(): Promise<MessageShape<O> | undefined>
  /** Says that nothing more will be sent. */
  end(): void
  /** Ends the call at once; the server sees it cancelled. */
  cancel(): void
}

export interface GrpcChannel {
  unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    options: GrpcCallOptions,
  ): Promise<MessageShape<O>>
  serverStream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageInitShape<I>,
    options: GrpcCallOptions,
  ): AsyncGenerator<MessageShape<O>>
  duplex<I extends DescMessage, O extends DescMessage>(
    method: DescMethodBiDiStreaming<I, O>,
    options: GrpcCallOptions,
  ): DuplexCall<I, O>
  close(): void
}

/** containerd's own limit for one message, either way (defaults.DefaultMaxRecvMsgSize). */
const MAX_MESSAGE_SIZE = 16 * 1024 * 1024

/** Bytes that the server may have under way to us; HTTP/2's default of 64 KiB would cost a wait every few messages. */
const FLOW_CONTROL_WINDOW = 4 * 1024 * 1024

/** Opens a channel to a unix socket. Nothing is connected before the first call. */
export function openGrpcChannel(socketPath: string): GrpcChannel {
  const client = new grpc.Client(`unix:${socketPath}`, grpc.credentials.createInsecure(), {
    'grpc.max_receive_message_length': MAX_MESSAGE_SIZE,
    'grpc.max_send_message_length': MAX_MESSAGE_SIZE,
    'grpc-node.flow_control_window': FLOW_CONTROL_WINDOW,
    'grpc.enable_http_proxy': 0,
    // Retries keep copies of what was sent; and whether to repeat a call is our callers' decision.
    'grpc.enable_retries': 0,
    'grpc.service_config_disable_resolution': 1,
    'grpc.use_local_subchannel_pool': 1,
  })
  return {
    unary: (method, request, options) => unary(client, method, request, options),
    serverStream: (method, request, options) => serverStream(client, method, request, options),
    duplex: (method, options) => duplex(client, method, options),
    close: () => client.close(),
  }
}

/** True for what a failed call throws. */
export function isGrpcFailure(error: unknown): error is GrpcFailure {
  return error instanceof Error && 'details' in error && typeof (error as {code?: unknown}).code === 'number'
}

/** The name that HTTP/2 requests of a method carry. */
export function methodPath(method: {
  readonly parent: {readonly typeName: string}
  readonly name: string
}): string {
  return `/${method.parent.typeName}/${method.name}`
}

function unary<I extends DescMessage, O extends DescMessage>(
  client: grpc.Client,
  method: DescMethodUnary<I, O>,
  request: MessageInitShape<I>,
  options: GrpcCallOptions,
): Promise<MessageShape<O>> {
  const {signal} = options
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason)
    const call = client.makeUnaryRequest(
      methodPath(method),
      encoder(method.input),
      decoder(method.output),
      request,
      metadataOf(options),
      callOptionsOf(options),
      (failure, response) => {
        signal?.removeEventListener('abort', cancel)
        if (failure) reject(signal?.aborted ? signal.reason : failure)
        else resolve(response!)
      },
    )
    const cancel = () => call.cancel()
    signal?.addEventListener('abort', cancel, {once: true})
  })
}

async function* serverStream<I extends DescMessage, O extends DescMessage>(
  client: grpc.Client,
  method: DescMethodServerStreaming<I, O>,
  request: MessageInitShape<I>,
  options: GrpcCallOptions,
): AsyncGenerator<MessageShape<O>> {
  const {signal} = options
  signal?.throwIfAborted()
  const call = client.makeServerStreamRequest(
    methodPath(method),
    encoder(method.input),
    decoder(method.output),
    request,
    metadataOf(options),
    callOptionsOf(options),
  )
  const cancel = () => call.cancel()
  signal?.addEventListener('abort', cancel, {once: true})
  try {
    for await (const message of call) yield message as MessageShape<O>
  } catch (failure) {
    throw signal?.aborted ? signal.reason : failure
  } finally {
    signal?.removeEventListener('abort', cancel)
    // A consumer that stops early: the failure that cancelling brings is nobody's.
    call.on('error', () => {})
    call.cancel()
  }
}

function duplex<I extends DescMessage, O extends DescMessage>(
  client: grpc.Client,
  method: DescMethodBiDiStreaming<I, O>,
  options: GrpcCallOptions,
): DuplexCall<I, O> {
  const {signal} = options
  signal?.throwIfAborted()
  const encode = encoder(method.input)
  const call = client.makeBidiStreamRequest(
    methodPath(method),
    (bytes: Buffer) => bytes,
    decoder(method.output),
    metadataOf(options),
    callOptionsOf(options),
  )
  const cancel = () => call.cancel()
  signal?.addEventListener('abort', cancel, {once: true})
  let over = false
  const ended = new Promise<void>(resolve => {
    const end = () => {
      over = true
      signal?.removeEventListener('abort', cancel)
      resolve()
    }
    call.on('error', end)
    call.on('end', end)
  })
  const answers = call[Symbol.asyncIterator]()

  async function sendEncoded(message: Buffer): Promise<void> {
    if (over || call.write(message)) return
    // A call that fails is never drained.
    let drained = (): void => {}
    const drain = new Promise<void>(resolve => call.once('drain', (drained = resolve)))
    await Promise.race([drain, ended])
    call.off('drain', drained)
  }

  return {
    // Encoded now, and not when the stream gets to it: the caller may reuse the bytes that the message points to.
    send: message => sendEncoded(encode(message)),
    sendEncoded,
    async receive() {
      try {
        const {value, done} = await answers.next()
        return done ? undefined : (value as MessageShape<O>)
      } catch (failure) {
        throw signal?.aborted ? signal.reason : failure
      }
    },
    end: () => call.end(),
    cancel,
  }
}

function encoder<T extends DescMessage>(schema: T): (message: MessageInitShape<T>) => Buffer {
  return message => {
    const bytes = toBinary(schema, create(schema, message))
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }
}

function decoder<T extends DescMessage>(schema: T): (bytes: Buffer) => MessageShape<T> {
  return bytes => fromBinary(schema, bytes)
}

function metadataOf(options: GrpcCallOptions): grpc.Metadata {
  const metadata = new grpc.Metadata()
  for (const [name, value] of Object.entries(options.headers)) metadata.set(name, value)
  return metadata
}

function callOptionsOf(options: GrpcCallOptions): grpc.CallOptions {
  return options.deadline === undefined ? {} : {deadline: options.deadline}
}
