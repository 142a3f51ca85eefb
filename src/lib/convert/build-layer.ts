// Builds a lazily readable layer from the bytes of an archive, with no store at either end: the library's way in.

import {createDigester} from '../blob/sha256.ts'
import {verifyStream} from '../blob/verified-stream.ts'
import {CodedError} from '../errors/coded-error.ts'
import type {BlobSource, CallOptions, ContentStore, OpenBlob} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {OCI_LAYER} from '../oci/media-type.ts'
import {type ConvertedBlob, type ConvertLayerOptions, convertLayer} from './convert-layer.ts'

export interface BuildLayerOptions extends Omit<ConvertLayerOptions, 'target' | 'family'> {
  /**
   * Takes the layer piece by piece, in order; each call is waited for. What it got is a layer only when `buildLayer`
   * has resolved.
   */
  readonly write: (bytes: Uint8Array) => void | Promise<void>
}

/** Bytes read at once. */
const READ_SIZE = 1 << 20

/**
 * Builds a layer from a tar, which is read twice: to know its digest, and to convert it. Throws `corrupt` or
 * `unsupported` for an archive that cannot be used, `unavailable` when the disk is full.
 */
export async function buildLayer(tar: BlobSource, options: BuildLayerOptions): Promise<ConvertedBlob> {
  const {write, ...conversion} = options
  const digester = createDigester()
  for await (const bytes of readThrough(tar, options)) digester.update(bytes)
  // Whether it is compressed, and how, its bytes tell.
  const descriptor = {mediaType: OCI_LAYER, digest: digester.digest(), size: tar.size}
  const content = sourceContent(tar, descriptor)
  return convertLayer({content, descriptor}, {...conversion, target: targetContent(write), family: 'oci'})
}

async function* readThrough(blob: BlobSource, {signal}: CallOptions): AsyncGenerator<Uint8Array> {
  for (let offset = 0; offset < blob.size; offset += READ_SIZE) {
    signal?.throwIfAborted()
    yield await blob.read(offset, Math.min(READ_SIZE, blob.size - offset), {signal})
  }
}

/** A store that has one blob. */
function sourceContent(blob: BlobSource, descriptor: Descriptor): ContentStore {
  const open = async (): Promise<OpenBlob> => ({
    size: blob.size,
    read: (offset, length, options) => blob.read(offset, length, options),
    stream: (options = {}) => verifyStream(readThrough(blob, options), descriptor, 'the archive'),
    [Symbol.asyncDispose]: async () => {},
  })
  return {
    name: 'the archive',
    open,
    info: async () => ({digest: descriptor.digest, size: descriptor.size, labels: {}}),
    write: async () => {
      throw new CodedError('internal', 'Cannot write to an archive that is being converted')
    },
    setLabels: async () => {},
  }
}

/** A store that hands on what is written. */
function targetContent(write: BuildLayerOptions['write']): ContentStore {
  return {
    name: 'the built layer',
    info: async () => undefined,
    open: async () => {
      throw new CodedError('not-found', 'Cannot read a layer that is being built')
    },
    write: async () => ({
      write: async bytes => write(bytes),
      commit: async () => {},
      [Symbol.asyncDispose]: async () => {},
    }),
    setLabels: async () => {},
  }
}
