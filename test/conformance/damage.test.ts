// Every format, damaged: no byte may change without being noticed, and nothing may end in silence or a crash.

import {describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {spoolLayer} from '../../src/lib/convert/spool-layer.ts'
import {CodedError} from '../../src/lib/errors/coded-error.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import {verifyLayer} from '../../src/lib/verify/verify-layer.ts'
import {parseOldPositions} from '../../src/lib/zstdchunked/positions.ts'
import {memoryBlob, memoryContent} from '../support/memory-content.ts'
import {writeBlob} from '../support/sample-image.ts'
import {archive, directory, member} from '../support/tar.ts'
import {type BuiltLayer, codec, FORMATS, LAZY_FORMATS, openBuilt, readContents} from './formats.ts'
import {contentsOf} from './tree.ts'

const TAR = archive(
  directory('d/'),
  member({name: 'd/a', uid: 7}, 'contents of a '.repeat(30)),
  member({name: 'b'}, 'b'),
  member({name: 'c', typeflag: '2', linkName: 'b'}),
)

/** What a reader says who is given `bytes` in place of the layer: contents, or the code of a clear error. */
async function readLazily(built: BuiltLayer, bytes: Uint8Array): Promise<unknown> {
  try {
    return await readContents(await openBuilt(built, bytes))
  } catch (error) {
    return clearCodeOf(error)
  }
}

/** What an unpacker makes of `bytes`, whose manifest was made to fit: a tar with the DiffID, or a clear error. */
async function unpack({descriptor, diffId}: BuiltLayer, bytes: Uint8Array): Promise<unknown> {
  const content = memoryContent()
  const fitting = await writeBlob(content, bytes, descriptor.mediaType)
  try {
    await using layer = await spoolLayer(
      {content, descriptor: fitting, diffId},
      {codec, temporaryDirectory: '/nonexistent', maxUncompressedSize: 1 << 20},
    )
    return digestOf(layer.spool.storage as Uint8Array)
  } catch (error) {
    return clearCodeOf(error)
  }
}

/** Only `corrupt` and `unsupported` say that it is the layer's fault; everything else is a bug of ours. */
function clearCodeOf(error: unknown): string {
  expect(error).toBeInstanceOf(CodedError)
  const {code, message} = error as CodedError
  expect(message).toMatch(/^[A-Z].*[^.]$/s)
  expect(['corrupt', 'unsupported']).toContain(code)
  return code
}

/** How much of a layer a lazy reader needs: where the manifest says where the TOC is, nothing that comes after it. */
function neededSize({bytes, descriptor}: BuiltLayer): number {
  const positions = parseOldPositions(descriptor.annotations ?? {})
  return positions ? positions.toc.offset + positions.toc.size : bytes.length
}

/** Where a layer is cut short: everywhere near its end, where footers are, and at every fifth byte before. */
function* sizesBelow(end: number): Iterable<number> {
  for (let size = 0; size < end; size += size < end - 120 ? 5 : 1) yield size
}

function changed(bytes: Uint8Array, at: number, mask: number): Uint8Array {
  const copy = Uint8Array.from(bytes)
  copy[at]! ^= mask
  return copy
}

describe.each(FORMATS)('$name', format => {
  it('with any byte changed does not unpack to anything else', async () => {
    const built = await format.build(TAR)
    for (let at = 0; at < built.bytes.length; at++) {
      const outcome = await unpack(built, changed(built.bytes, at, 1 << (at % 8)))
      expect([built.diffId, 'corrupt', 'unsupported'], `byte ${at}`).toContain(outcome)
    }
  })

  it('cut short anywhere does not unpack', async () => {
    const built = await format.build(TAR)
    // What comes after the last byte that decompresses to something may be missing: a footer, for example.
    const whole = [built.diffId, 'corrupt', 'unsupported']
    for (const size of sizesBelow(built.bytes.length)) {
      const outcome = await unpack(built, built.bytes.subarray(0, size))
      expect(whole, `${size} bytes`).toContain(outcome)
    }
    expect(await unpack(built, built.bytes.subarray(0, built.bytes.length / 2))).toBe('corrupt')
  })

  it('that is not what its descriptor says is corrupt', async () => {
    const built = await format.build(TAR)
    const content = memoryContent()
    await writeBlob(content, built.bytes)
    const lie = async (descriptor: Descriptor) =>
      spoolLayer(
        {content, descriptor, diffId: built.diffId},
        {codec, temporaryDirectory: '/nonexistent', maxUncompressedSize: 1 << 20},
      ).then(() => 'no error', clearCodeOf)
    expect(await lie({...built.descriptor, size: built.bytes.length - 1})).toBe('corrupt')
    expect(await lie({...built.descriptor, size: built.bytes.length + 1})).toBe('corrupt')
  })
})

describe.each(LAZY_FORMATS)('$name', format => {
  it('with any byte changed is found by verifying it, and never gives a reader other contents', async () => {
    const built = await format.build(TAR, ['b'])
    const {descriptor, diffId, externalToc} = built
    for (let at = 0; at < built.bytes.length; at++) {
      const bytes = changed(built.bytes, at, 1 << (at % 8))
      const outcome = await readLazily(built, bytes)
      if (typeof outcome !== 'string') expect(outcome, `byte ${at}`).toEqual(contentsOf(TAR))
      // Verifying finds every change by the blob's digest, and then looks for what it is.
      if (at % 7 !== 0) continue
      const {findings} = await verifyLayer(memoryBlob(bytes), descriptor, {codec, diffId, externalToc})
      expect(findings.length, `byte ${at}`).toBeGreaterThan(0)
    }
  })

  it('cut short anywhere cannot be read, and verifying says so', async () => {
    const built = await format.build(TAR, ['b'])
    const {descriptor, diffId, externalToc} = built
    for (const size of sizesBelow(built.bytes.length)) {
      const bytes = built.bytes.subarray(0, size)
      const outcome = await readLazily(built, bytes)
      if (size < neededSize(built)) expect(typeof outcome, `${size} bytes`).toBe('string')
      else expect(outcome, `${size} bytes`).toEqual(contentsOf(TAR))
      if (size % 7 !== 0) continue
      const {findings} = await verifyLayer(memoryBlob(bytes), descriptor, {codec, diffId, externalToc})
      expect(findings.map(({kind}) => kind)).toContain('blob')
    }
  })

  it('with any byte of its TOC changed, the manifest made to fit, is still found out', async () => {
    const built = await format.build(TAR, ['b'])
    if (!built.externalToc) return
    for (let at = 0; at < built.externalToc.length; at++) {
      const externalToc = changed(built.externalToc, at, 1 << (at % 7))
      expect(await readLazily({...built, externalToc}, built.bytes), `byte ${at}`).toBe('corrupt')
    }
  })
})
