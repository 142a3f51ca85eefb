import {closeSync, mkdtempSync, openSync, rmSync, writeFileSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {gunzipSync, zstdDecompressSync} from 'node:zlib'
import {afterAll, beforeAll, describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import type {BulkCodec, MemberKind, PieceLists, Spool} from '../../src/lib/compression/codec.ts'
import {CodedError, codeOf} from '../../src/lib/errors/coded-error.ts'
import {findAddon} from '../../src/lib/native/addon.ts'
import {createBulkCodec, createNativeCodec} from '../../src/lib/native/bulk-codec.ts'
import {createNodeCodec} from '../../src/lib/native/node-codec.ts'

const contents = Buffer.from('0123456789abcdefghijklmnopqrstuvwxyz'.repeat(5000))
const literals = Buffer.from('LITERAL')
let directory: string
let fd: number

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'codec-'))
  writeFileSync(join(directory, 'spool'), contents)
  fd = openSync(join(directory, 'spool'), 'r')
})

afterAll(() => {
  closeSync(fd)
  rmSync(directory, {recursive: true})
})

/** Lists of `[offset, size]`, where a negative offset is one of `literals`. */
function listsOf(...lists: [number, number][][]): PieceLists {
  return {
    literals,
    offsets: Float64Array.from(lists.flat(), ([offset]) => offset),
    sizes: Float64Array.from(lists.flat(), ([, size]) => size),
    counts: Uint32Array.from(lists, list => list.length),
  }
}

const text = (offset: number, size: number) => contents.subarray(offset, offset + size).toString()
const inflate = (kind: MemberKind, bytes: Uint8Array) =>
  (kind === 'gzip' ? gunzipSync(bytes) : zstdDecompressSync(bytes)).toString()

function membersOf(result: {bytes: Uint8Array; sizes: Uint32Array}): Uint8Array[] {
  let at = 0
  return Array.from(result.sizes, size => result.bytes.subarray(at, (at += size)))
}

describe('a member of more than 64 MiB', () => {
  // Numbers, so that it compresses, and no two stretches are the same.
  const large = Buffer.from(Uint32Array.from({length: 17 << 20}, (_, index) => index).buffer)
  const whole = {
    ...listsOf([
      [-1, 7],
      [0, large.length],
    ]),
    literals,
  }
  const codec = createNativeCodec(findAddon()!)

  it.each(['gzip', 'zstd'] as const)(
    'is one member of %s, the same from a file and from memory',
    async kind => {
      const file = join(directory, `large-${kind}`)
      writeFileSync(file, large)
      const storage = openSync(file, 'r')
      const [fromFile, fromMemory] = await Promise.all(
        [storage, large].map(each =>
          codec.compressMembers(kind, 3, {size: large.length, storage: each}, whole),
        ),
      ).finally(() => closeSync(storage))
      expect(fromFile!.bytes.length).toBeLessThan(large.length)
      expect(Buffer.compare(fromFile!.bytes, fromMemory!.bytes)).toBe(0)
      expect([...fromFile!.sizes]).toEqual([fromFile!.bytes.length])
      const size = 7 + large.length
      const inflated = await codec.inflateMember(kind, fromFile!.bytes, size)
      expect(Buffer.compare(inflated, Buffer.concat([literals, large]))).toBe(0)
      if (kind === 'gzip') {
        expect([...fromFile!.bytes.subarray(0, 10)]).toEqual([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff])
      }
    },
  )

  it('that lies outside of its spool is refused', async () => {
    const lists = listsOf([[1, large.length]])
    const spool = {size: large.length, storage: large}
    await expect(codec.compressMembers('gzip', 3, spool, lists)).rejects.toThrow(/outside of its source/)
  })
})

it('the native codec is built here', () => {
  expect(createBulkCodec().name).toBe('native')
})

const codecs: [string, () => BulkCodec][] = [
  ['native', () => createNativeCodec(findAddon()!)],
  ['node', createNodeCodec],
]
const spools: [string, () => Spool][] = [
  ['a file', () => ({size: contents.length, storage: fd})],
  ['memory', () => ({size: contents.length, storage: contents})],
]

for (const [codecName, createCodec] of codecs) {
  for (const [spoolName, createSpool] of spools) {
    describe(`the ${codecName} codec over ${spoolName}`, () => {
      for (const kind of ['gzip', 'zstd'] as const) {
        it(`makes one ${kind} member of each list`, async () => {
          const lists = listsOf(
            [[0, 36]],
            [
              [-1, 7],
              [100, 5000],
            ],
            [],
            [[170000, 10000]],
          )
          const members = membersOf(await createCodec().compressMembers(kind, 6, createSpool(), lists))
          expect(members.map(member => inflate(kind, member))).toEqual([
            text(0, 36),
            `LITERAL${text(100, 5000)}`,
            '',
            text(170000, 10000),
          ])
        })

        it(`gives back a ${kind} member of a known size, and nothing else`, async () => {
          const codec = createCodec()
          const {bytes} = await codec.compressMembers(kind, 6, createSpool(), listsOf([[0, 5000]]))
          expect(Buffer.from(await codec.inflateMember(kind, bytes, 5000)).toString()).toBe(text(0, 5000))
          for (const size of [0, 4999, 5001, 2 ** 31, 2 ** 50]) {
            expect(await codec.inflateMember(kind, bytes, size).then(() => 'no error', codeOf)).toBe(
              'corrupt',
            )
          }
          const damaged = Buffer.from(bytes)
          damaged[0]! ^= 0xff
          for (const broken of [damaged, bytes.subarray(0, -1), bytes.subarray(0, 3), Buffer.alloc(0)]) {
            expect(await codec.inflateMember(kind, broken, 5000).then(() => 'no error', codeOf)).toBe(
              'corrupt',
            )
          }
        })
      }

      it('writes gzip headers that depend on nothing', async () => {
        const {bytes} = await createCodec().compressMembers('gzip', 9, createSpool(), listsOf([[0, 10]]))
        expect([...bytes.subarray(0, 10)]).toEqual([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff])
      })

      it('hashes each list', async () => {
        const hashes = await createCodec().hashPieces(
          createSpool(),
          listsOf(
            [
              [0, 50000],
              [-3, 3],
            ],
            [],
            [[5, 5]],
          ),
        )
        const expected = [`${text(0, 50000)}TER`, '', text(5, 5)].map(bytes => digestOf(bytes).slice(7))
        expect(Buffer.from(hashes).toString('hex')).toBe(expected.join(''))
      })

      it('checksums each list as Go does, across pieces', async () => {
        const codec = createCodec()
        const lists = listsOf(
          [[1, 9]],
          [[-1, 7]],
          [],
          [
            [1, 4],
            [5, 5],
          ],
          [[3, 100_000]],
        )
        const checksums = Buffer.from(await codec.checksumPieces(createSpool(), lists)).toString('hex')
        // The first is the check value of the CRC catalogue's CRC-64/GO-ISO, that of "123456789".
        expect(checksums.slice(0, 16)).toBe('b90956c775a41001')
        expect(checksums.slice(32, 64)).toBe(`${'0'.repeat(16)}b90956c775a41001`)
        const whole = await createNodeCodec().checksumPieces(createSpool(), lists)
        expect(checksums).toBe(Buffer.from(whole).toString('hex'))
      })

      it('reads pieces one after the other', async () => {
        const lists = listsOf(
          [
            [10, 3],
            [-1, 7],
          ],
          [],
          [[0, 2]],
        )
        const read = Buffer.from(await createCodec().readPieces(createSpool(), lists)).toString()
        expect(read).toBe('abcLITERAL01')
      })

      it('hashes a stream in the order of the calls', async () => {
        const digester = createCodec().createDigester()
        const updates = [
          digester.update(Buffer.from('first')),
          digester.updatePieces(createSpool(), listsOf([[0, contents.length]], [[-1, 7]])),
          digester.update(Buffer.from('last')),
        ]
        const hash = Buffer.from(await digester.digest()).toString('hex')
        await Promise.all(updates)
        expect(`sha256:${hash}`).toBe(digestOf(`first${contents}LITERALlast`))
      })

      it('refuses pieces outside of their source', async () => {
        const codec = createCodec()
        for (const piece of [
          [contents.length - 1, 2],
          [-8, 1],
          [-1, 8],
        ] as [number, number][]) {
          await expect(codec.hashPieces(createSpool(), listsOf([piece]))).rejects.toThrow(/outside|shorter/)
          await expect(codec.checksumPieces(createSpool(), listsOf([piece]))).rejects.toThrow(CodedError)
          await expect(codec.readPieces(createSpool(), listsOf([piece]))).rejects.toThrow(CodedError)
          await expect(codec.compressMembers('gzip', 6, createSpool(), listsOf([piece]))).rejects.toThrow(
            CodedError,
          )
        }
      })

      it('serves many calls at once', async () => {
        const codec = createCodec()
        const sizes = Array.from({length: 40}, (_, index) => index * 1000)
        const results = await Promise.all(
          sizes.map(size => codec.compressMembers('gzip', 1, createSpool(), listsOf([[0, size]]))),
        )
        expect(results.map(({bytes}) => gunzipSync(bytes).length)).toEqual(sizes)
      })
    })
  }
}
