// Credentials that the kubelet sends along with PullImage, caught by standing between it and the CRI's image service.

import {type DescMessage, fromBinary, type MessageShape} from '@bufbuild/protobuf'
import * as grpc from '@grpc/grpc-js'
import {formatReference, parseReference, type Reference, withDefaultTag} from '../../lib/oci/reference.ts'
import type {Credential, Keychain} from '../../lib/registry/keychain.ts'
import type {GrpcServer, ServedCall} from '../process/grpc-server.ts'
import {type AuthConfig, PullImageRequestSchema, RemoveImageRequestSchema} from './proto/image_service_pb.ts'

/** Every unary method of the image service, in both versions that kubelets speak. */
const METHODS = ['ListImages', 'ImageStatus', 'PullImage', 'RemoveImage', 'ImageFsInfo']
const SERVICES = ['runtime.v1.ImageService', 'runtime.v1alpha2.ImageService']
/** Images whose credentials are remembered; a node has a few hundred. The oldest go first. */
const MAX_IMAGES = 10_000
/** containerd's own limit for one message (defaults.DefaultMaxRecvMsgSize). */
const MAX_MESSAGE_SIZE = 16 * 1024 * 1024

interface Captured {
  readonly reference: Reference
  readonly auth: AuthConfig
}

/** In memory only: credentials of a kubelet are nobody's to keep. */
export interface CriKeychain extends Keychain, Disposable {
  /** Passes the image service of `imageServicePath` through `server`. */
  serve(server: GrpcServer): void
}

/**
 * `imageServicePath` is the CRI's socket; nothing is connected before the first call. Credentials of an image that was removed
 * are known as long as `imagesInUse` has one of its repository: its layers may be those of others.
 */
export function createCriKeychain(
  imageServicePath: string,
  imagesInUse: () => Iterable<string>,
): CriKeychain {
  const captured = new Map<string, Captured>()
  /** Images that were removed, and whose credentials are known still. */
  const removed = new Set<string>()
  const client = new grpc.Client(`unix:${imageServicePath}`, grpc.credentials.createInsecure(), {
    'grpc.max_receive_message_length': MAX_MESSAGE_SIZE,
    'grpc.max_send_message_length': MAX_MESSAGE_SIZE,
    'grpc.enable_http_proxy': 0,
  })

  function capture(request: Buffer): void {
    const message = decode(PullImageRequestSchema, request)
    const reference = referenceOf(message?.image?.image)
    if (!reference) return
    const key = formatReference(reference)
    // Last in the order of insertion, so that the oldest are the first.
    captured.delete(key)
    removed.delete(key)
    if (message?.auth) captured.set(key, {reference, auth: message.auth})
    for (const oldest of captured.keys()) {
      if (captured.size <= MAX_IMAGES) break
      captured.delete(oldest)
    }
  }

  function drop(request: Buffer): void {
    // May also be an image's id, which says nothing about where it came from.
    const reference = referenceOf(decode(RemoveImageRequestSchema, request)?.image?.image)
    if (reference) removed.add(formatReference(reference))
    forgetUnused()
  }

  function forgetUnused(): void {
    if (removed.size === 0) return
    const inUse = new Set([...imagesInUse()].map(text => repositoryIn(referenceOf(text))))
    for (const key of removed) {
      if (inUse.has(repositoryIn(captured.get(key)?.reference))) continue
      captured.delete(key)
      removed.delete(key)
    }
  }

  return {
    serve(server) {
      for (const service of SERVICES) {
        for (const method of METHODS) {
          const path = `/${service}/${method}`
          server.addRaw(path, (request, metadata, call) => {
            if (method === 'PullImage') capture(request)
            if (method === 'RemoveImage') drop(request)
            return forward(client, path, request, metadata, call)
          })
        }
      }
    },
    async find(host, path) {
      forgetUnused()
      const matching = [...captured.values()].findLast(
        ({reference}) => reference.domain === host && reference.path === path,
      )
      return matching && credentialOf(matching.auth, host)
    },
    [Symbol.dispose]: () => client.close(),
  }
}

/** The answer, or the failure, as it came; without a socket there, gRPC's own `unavailable`, which kubelets retry. */
function forward(
  client: grpc.Client,
  path: string,
  request: Buffer,
  metadata: grpc.Metadata,
  {signal}: ServedCall,
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const same = (bytes: Buffer) => bytes
    const call = client.makeUnaryRequest(path, same, same, request, metadata, {}, (failure, answer) => {
      if (failure) reject(failure)
      else resolve(answer!)
    })
    signal.addEventListener('abort', () => call.cancel(), {once: true})
  })
}

/** What is malformed is the image service's to refuse. */
function decode<T extends DescMessage>(schema: T, bytes: Buffer): MessageShape<T> | undefined {
  try {
    return fromBinary(schema, bytes)
  } catch {
    return undefined
  }
}

function repositoryIn(reference: Reference | undefined): string | undefined {
  return reference && `${reference.domain}/${reference.path}`
}

function referenceOf(text: string | undefined): Reference | undefined {
  try {
    return text ? withDefaultTag(parseReference(text)) : undefined
  } catch {
    return undefined
  }
}

/** As containerd's CRI reads it (internal/cri/server/images, ParseAuth): another server's credentials are not used. */
function credentialOf(auth: AuthConfig, host: string): Credential | undefined {
  const {username, password, serverAddress, identityToken, registryToken} = auth
  if (serverAddress !== '' && hostOf(serverAddress) !== host) return undefined
  if (username !== '') return {kind: 'password', username, password}
  if (identityToken !== '') return {kind: 'identity', token: identityToken}
  if (registryToken !== '') return {kind: 'bearer', token: registryToken}
  const text = Buffer.from(auth.auth, 'base64').toString('utf8').replace(/\0+$/, '')
  const colon = text.indexOf(':')
  return colon > 0
    ? {kind: 'password', username: text.slice(0, colon), password: text.slice(colon + 1)}
    : undefined
}

/** `https://index.docker.io/v1/` is Docker Hub's old name for itself. */
function hostOf(address: string): string {
  const url = URL.parse(/^[a-z]+:\/\//i.test(address) ? address : `https://${address}`)
  const host = url?.host ?? address
  return ['index.docker.io', 'registry-1.docker.io'].includes(host) ? 'docker.io' : host
}
