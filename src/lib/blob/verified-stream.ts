// Streams that vouch for their bytes: digest and size are checked before the consumer sees the end.

import {CodedError} from '../errors/coded-error.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {createDigester, type Digester} from './sha256.ts'

/**
 * Passes `chunks` on, the last of them only when all were right. Throws `corrupt`, naming `where`, as soon as they are
 * longer than the descriptor's size, and at the end when they are shorter or have another digest.
 */
export async function* verifyStream(
  chunks: AsyncIterable<Uint8Array>,
  descriptor: Pick<Descriptor, 'digest' | 'size'>,
  where: string,
): AsyncGenerator<Uint8Array> {
  const digester = createDigester()
  let size = 0
  for await (const chunk of chunks) {
    if (chunk.length === 0) continue
    size += chunk.length
    if (size > descriptor.size) throw wrongSize(descriptor, where, `more than ${descriptor.size}`)
    digester.update(chunk)
    // A server that has sent all bytes can no longer tell its client that they were wrong.
    if (size === descriptor.size) checkDigest(digester, descriptor, where)
    yield chunk
  }
  if (size !== descriptor.size) throw wrongSize(descriptor, where, String(size))
  if (size === 0) checkDigest(digester, descriptor, where)
}

function checkDigest(
  digester: Digester,
  descriptor: Pick<Descriptor, 'digest' | 'size'>,
  where: string,
): void {
  const digest = digester.digest()
  if (digest !== descriptor.digest) {
    throw new CodedError('corrupt', `Cannot use ${descriptor.digest} in ${where}: its digest is ${digest}`)
  }
}

function wrongSize(descriptor: Pick<Descriptor, 'digest' | 'size'>, where: string, size: string): CodedError {
  return new CodedError(
    'corrupt',
    `Cannot use ${descriptor.digest} in ${where}: it has ${size} bytes instead of ${descriptor.size}`,
  )
}
