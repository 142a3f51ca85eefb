// What is said to a layer store over its socket.

import {
  type GrpcCallOptions,
  type GrpcChannel,
  GrpcStatus,
  isGrpcFailure,
  openGrpcChannel,
} from '../containerd/grpc.ts'
import {CodedError} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {Controller} from './proto/control_pb.ts'
import {Images, type StoredImage} from './proto/images_pb.ts'

/** How long the store may take to take note of something, milliseconds. */
const TIMEOUT_MS = 10_000

/** Tells credentials as Podman gives them to its helper. Throws `unavailable` when no store answers at `address`. */
export async function tellCredentials(
  address: string,
  json: Uint8Array,
  options: CallOptions = {},
): Promise<void> {
  const call = {...options, timeoutMs: TIMEOUT_MS}
  await ask(address, call, (channel, headers) =>
    channel.unary(Controller.method.addCredential, {data: json}, headers),
  )
}

export interface AddOptions extends CallOptions {
  /** `os/architecture[/variant]`; the machine's where there is none. */
  readonly platform?: string | undefined
}

/** Has the store at `address` mount an image's layers and show it. Takes as long as unpacking what is not lazy does. */
export async function addStoredImage(
  address: string,
  reference: string,
  {platform = '', signal}: AddOptions = {},
): Promise<ListedImage> {
  const answer = await ask(address, {signal}, (channel, call) =>
    channel.unary(Images.method.add, {reference, platform}, call),
  )
  return listedImage(answer)
}

export async function removeStoredImage(
  address: string,
  reference: string,
  {signal}: CallOptions = {},
): Promise<ListedImage> {
  const answer = await ask(address, {signal}, (channel, call) =>
    channel.unary(Images.method.remove, {reference}, call),
  )
  return listedImage(answer.removed)
}

export async function listStoredImages(
  address: string,
  options: CallOptions = {},
): Promise<readonly ListedImage[]> {
  const call = {...options, timeoutMs: TIMEOUT_MS}
  const answer = await ask(address, call, (channel, headers) =>
    channel.unary(Images.method.list, {}, headers),
  )
  return answer.images.map(listedImage)
}

/** An image of the store. Sizes are bytes. */
export interface ListedImage {
  readonly names: readonly string[]
  readonly id: string
  readonly digest: string
  readonly layers: readonly {
    readonly digest: string
    readonly size: number
    /** False for one that was unpacked, with the reason. */
    readonly lazy: boolean
    readonly reason?: string
  }[]
}

function listedImage(message: StoredImage | undefined): ListedImage {
  if (!message) throw new CodedError('internal', 'The layer store gave no image')
  const {names, id, digest, layers} = message
  return {
    names,
    id,
    digest,
    layers: layers.map(({digest: blob, size, lazy, reason}) => ({
      digest: blob,
      size: Number(size),
      lazy,
      ...(reason === undefined ? {} : {reason}),
    })),
  }
}

async function ask<T>(
  address: string,
  {signal, timeoutMs}: CallOptions & {readonly timeoutMs?: number},
  request: (channel: GrpcChannel, call: GrpcCallOptions) => Promise<T>,
): Promise<T> {
  const path = address.replace(/^unix:(?:\/\/)?/, '')
  const channel = openGrpcChannel(path)
  try {
    const deadline = timeoutMs === undefined ? undefined : Date.now() + timeoutMs
    return await request(channel, {headers: {}, signal, deadline})
  } catch (failure) {
    throw isGrpcFailure(failure) ? describeFailure(failure.code, failure.details, path) : failure
  } finally {
    channel.close()
  }
}

function describeFailure(status: number, details: string, path: string): CodedError {
  switch (status) {
    case GrpcStatus.UNIMPLEMENTED:
      return new CodedError(
        'unsupported',
        `Cannot ask the layer store at "${path}": it is another implementation, or cannot: ${details}`,
      )
    case GrpcStatus.UNAVAILABLE:
    case GrpcStatus.DEADLINE_EXCEEDED:
      return new CodedError(
        'unavailable',
        `Cannot reach the layer store at "${path}": ${details}; is stargz-store running, and is the address right?`,
      )
    case GrpcStatus.NOT_FOUND:
      return new CodedError('not-found', details)
    case GrpcStatus.INVALID_ARGUMENT:
      return new CodedError('invalid-argument', details)
    case GrpcStatus.FAILED_PRECONDITION:
      return new CodedError('failed-precondition', details)
    case GrpcStatus.UNAUTHENTICATED:
    case GrpcStatus.PERMISSION_DENIED:
      return new CodedError('permission-denied', details)
    case GrpcStatus.DATA_LOSS:
      return new CodedError('corrupt', details)
    default:
      return new CodedError('internal', `Cannot ask the layer store at "${path}": ${details}`)
  }
}
