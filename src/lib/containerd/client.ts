// A connection to one containerd and one of its namespaces.

import {lstat} from 'node:fs/promises'
import {createConnection} from 'node:net'
import type {
  DescMessage,
  DescMethodBiDiStreaming,
  DescMethodServerStreaming,
  DescMethodUnary,
  MessageInitShape,
  MessageShape,
} from '@bufbuild/protobuf'
import {CodedError, codeOf} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {describeFailure, type Place} from './failure.ts'
import {type DuplexCall, type GrpcCallOptions, GrpcStatus, isGrpcFailure, openGrpcChannel} from './grpc.ts'
import {Version} from './proto/version_pb.ts'

/** Where containerd listens unless told otherwise. */
export const DEFAULT_ADDRESS = '/run/containerd/containerd.sock'
/** The namespace of `ctr`. */
export const DEFAULT_NAMESPACE = 'default'
/** The wait for an answer of a containerd that is there; `ctr` waits as long. */
export const DEFAULT_CONNECT_TIMEOUT_MS = 10_000

/** The oldest release whose services have everything that we call. */
const OLDEST_MINOR_OF_1 = 6

export interface ConnectOptions extends CallOptions {
  /** Path of the unix socket, also as `unix:///path`. */
  readonly address?: string | undefined
  readonly namespace?: string | undefined
  /** All calls together must end within this time; without it, or with 0, they may take for ever. */
  readonly timeoutMs?: number | undefined
  readonly connectTimeoutMs?: number | undefined
}

export interface ClientCallOptions extends CallOptions {
  /** What is being done, to follow "Cannot" in a message: `read image "x"`. */
  readonly doing: string
  /** The lease that whatever the call creates belongs to. */
  readonly lease?: string | undefined
}

/** The namespace of a running containerd. Every failure is a `CodedError` that names socket and namespace. */
export interface ContainerdClient extends Disposable, Place {
  /** As containerd says it: `1.6.20`, `v2.1.4`. */
  readonly version: string
  call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    options: ClientCallOptions,
  ): Promise<MessageShape<O>>
  stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageInitShape<I>,
    options: ClientCallOptions,
  ): AsyncGenerator<MessageShape<O>>
  duplex<I extends DescMessage, O extends DescMessage>(
    method: DescMethodBiDiStreaming<I, O>,
    options: ClientCallOptions,
  ): DuplexCall<I, O>
}

/**
 * Connects to containerd. Throws `unavailable` when none is there or it does not answer, `permission-denied` when this
 * user may not speak to it, `failed-precondition` when something else listens, `unsupported` when it is too old, and
 * `invalid-argument` for an address or namespace that cannot be one. The caller disposes the client.
 */
export async function connectContainerd(options: ConnectOptions = {}): Promise<ContainerdClient> {
  const address = parseAddress(options.address || DEFAULT_ADDRESS)
  const namespace = parseNamespace(options.namespace || DEFAULT_NAMESPACE)
  const connectTimeoutMs = options.connectTimeoutMs || DEFAULT_CONNECT_TIMEOUT_MS
  const connectDeadline = Date.now() + connectTimeoutMs
  options.signal?.throwIfAborted()
  const channel = openGrpcChannel(address)
  try {
    const request = {headers: {}, deadline: connectDeadline, signal: options.signal}
    const {version} = await channel.unary(Version.method.version, {}, request).catch(async failure => {
      if (isGrpcFailure(failure)) await checkSocket(address)
      throw describeConnectFailure(failure, address, connectTimeoutMs)
    })
    checkVersion(version, address)
    const deadline = options.timeoutMs ? Date.now() + options.timeoutMs : undefined
    return createClient({address, namespace}, version, channel, deadline)
  } catch (error) {
    channel.close()
    throw error
  }
}

function createClient(
  place: Place,
  version: string,
  channel: ReturnType<typeof openGrpcChannel>,
  deadline: number | undefined,
): ContainerdClient {
  const optionsOf = ({signal, lease}: ClientCallOptions): GrpcCallOptions => ({
    signal,
    deadline,
    headers: {
      'containerd-namespace': place.namespace,
      ...(lease === undefined ? {} : {'containerd-lease': lease}),
    },
  })
  return {
    ...place,
    version,
    async call(method, request, options) {
      try {
        return await channel.unary(method, request, optionsOf(options))
      } catch (failure) {
        throw describeFailure(failure, options.doing, place)
      }
    },
    async *stream(method, request, options) {
      try {
        yield* channel.serverStream(method, request, optionsOf(options))
      } catch (failure) {
        throw describeFailure(failure, options.doing, place)
      }
    },
    duplex(method, options) {
      const call = channel.duplex(method, optionsOf(options))
      return {
        ...call,
        receive: () =>
          call.receive().catch(failure => {
            throw describeFailure(failure, options.doing, place)
          }),
      }
    },
    [Symbol.dispose]: () => channel.close(),
  }
}

function parseAddress(address: string): string {
  const path = address.replace(/^unix:(\/\/)?/, '')
  if (!path.startsWith('/')) {
    throw new CodedError(
      'invalid-argument',
      `Cannot use ${JSON.stringify(address)} as containerd's address: expected the absolute path of a unix socket`,
    )
  }
  return path
}

/** The identifiers that containerd accepts (its package `identifiers`); the header could not carry others anyway. */
function parseNamespace(namespace: string): string {
  if (namespace.length > 76 || !/^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/.test(namespace)) {
    throw new CodedError(
      'invalid-argument',
      `Cannot use ${JSON.stringify(namespace)} as a containerd namespace: expected letters and digits, with single "." "_" "-" between`,
    )
  }
  return namespace
}

/** gRPC calls every failure to connect UNAVAILABLE; asking the socket tells them apart. */
async function checkSocket(address: string): Promise<void> {
  try {
    const status = await lstat(address).catch(cause => {
      if (cause.code !== 'ENOENT') throw cause
      throw new CodedError(
        'unavailable',
        `Cannot reach containerd: there is no socket "${address}"; is it running, and is the address right?`,
      )
    })
    if (!status.isSocket() && !status.isSymbolicLink()) {
      throw new CodedError('failed-precondition', `Cannot reach containerd: "${address}" is not a socket`)
    }
    await probeSocket(address)
  } catch (cause) {
    if (cause instanceof CodedError) throw cause
    if (codeOf(cause) === 'permission-denied') {
      throw new CodedError(
        'permission-denied',
        `Cannot reach containerd: no permission to use the socket "${address}"; only its owner, mostly root, may`,
        {cause},
      )
    }
    throw new CodedError(
      'unavailable',
      `Cannot reach containerd: nothing listens on the socket "${address}"`,
      {
        cause,
      },
    )
  }
}

function probeSocket(address: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(address)
    socket.once('error', reject)
    socket.once('connect', () => {
      socket.destroy()
      resolve()
    })
  })
}

function describeConnectFailure(failure: unknown, address: string, connectTimeoutMs: number): unknown {
  if (!isGrpcFailure(failure)) return failure
  if (failure.code === GrpcStatus.DEADLINE_EXCEEDED) {
    return new CodedError(
      'unavailable',
      `Cannot reach containerd: the socket "${address}" did not answer within ${connectTimeoutMs} ms`,
      {cause: failure},
    )
  }
  return new CodedError(
    'failed-precondition',
    `Cannot use the socket "${address}" as containerd: what listens there does not speak containerd's API`,
    {cause: failure},
  )
}

/** Releases are `1.6.20~ds1` or `v2.1.4`; a build without a version is taken for a new one. */
function checkVersion(version: string, address: string): void {
  const [, major, minor] = /^v?(\d+)\.(\d+)/.exec(version) ?? []
  if (Number(major) < 1 || (Number(major) === 1 && Number(minor) < OLDEST_MINOR_OF_1)) {
    throw new CodedError(
      'unsupported',
      `Cannot use containerd ${version} at "${address}": it is older than 1.${OLDEST_MINOR_OF_1}`,
    )
  }
}
