// What the kernel and the dynamic loader read to start a program: its interpreter and its libraries, as the file says.

import type {ReadAt} from '../erofs/image-reader.ts'

/** What a program asks for before it runs. */
export interface ProgramNeeds {
  /** Paths, and after `#!` what is to be looked for on the PATH, too. */
  readonly interpreters: readonly string[]
  /** Names of libraries (ld.so(8), DT_NEEDED). */
  readonly libraries: readonly string[]
}

const NOTHING: ProgramNeeds = {interpreters: [], libraries: []}

/** ELF-64, little-endian (elf(5)): of those that containers run on, only s390x is another. */
const ELF64_LITTLE = Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1])
const HEADER_SIZE = 64
const SEGMENT_SIZE = 56
const [PT_LOAD, PT_DYNAMIC, PT_INTERP] = [1, 2, 3]
const [DT_NEEDED, DT_STRTAB] = [1n, 5n]
const MAX_SEGMENTS = 64
const MAX_DYNAMIC = 64 << 10
/** File names have no more (NAME_MAX). */
const MAX_NAME = 256
const MAX_LIBRARIES = 128
/** The kernel reads as much of a script (BINPRM_BUF_SIZE). */
const SCRIPT_LINE = 256

/** Reads a program's file, of which everything is at hand. One that is no program needs nothing. */
export async function programNeeds(read: ReadAt, size: number): Promise<ProgramNeeds> {
  const start = Buffer.from(await read(0, Math.min(size, SCRIPT_LINE)))
  if (start.subarray(0, 2).toString('latin1') === '#!') {
    const [line = ''] = start.subarray(2).toString('latin1').split('\n')
    return {interpreters: line.trim().split(/\s+/).slice(0, 2), libraries: []}
  }
  if (start.length < HEADER_SIZE || !start.subarray(0, 6).equals(ELF64_LITTLE)) return NOTHING
  return elfNeeds(start, read, size)
}

interface Segment {
  readonly type: number
  readonly offset: number
  readonly address: bigint
  readonly size: number
}

async function elfNeeds(header: Buffer, read: ReadAt, fileSize: number): Promise<ProgramNeeds> {
  const readInside = async (offset: number, length: number, most: number) => {
    const isInside = length <= most && offset + length <= fileSize
    return isInside && length > 0 ? Buffer.from(await read(offset, length)) : Buffer.alloc(0)
  }
  const count = header.readUInt16LE(56)
  const table = await readInside(
    Number(header.readBigUInt64LE(32)),
    count * SEGMENT_SIZE,
    MAX_SEGMENTS * SEGMENT_SIZE,
  )
  const segments: Segment[] = []
  for (let at = 0; at < table.length; at += SEGMENT_SIZE) {
    segments.push({
      type: table.readUInt32LE(at),
      offset: Number(table.readBigUInt64LE(at + 8)),
      address: table.readBigUInt64LE(at + 16),
      size: Number(table.readBigUInt64LE(at + 32)),
    })
  }
  const contentsOf = async (type: number, most: number) => {
    const segment = segments.find(candidate => candidate.type === type)
    return segment ? readInside(segment.offset, segment.size, most) : Buffer.alloc(0)
  }
  const interpreter = textAt(await contentsOf(PT_INTERP, 4096), 0)
  const dynamic = entriesOf(await contentsOf(PT_DYNAMIC, MAX_DYNAMIC))
  const numberOf = (tag: bigint) => dynamic.find(entry => entry.tag === tag)?.value ?? 0n
  const strings = offsetOf(segments, numberOf(DT_STRTAB))
  const needed = dynamic.filter(({tag}) => tag === DT_NEEDED).slice(0, MAX_LIBRARIES)
  const names = needed.map(async ({value}) => {
    const at = strings + Number(value)
    return textAt(await readInside(at, Math.min(MAX_NAME, fileSize - at), MAX_NAME), 0)
  })
  return {
    interpreters: interpreter === '' ? [] : [interpreter],
    libraries: (await Promise.all(names)).filter(name => name !== ''),
  }
}

function entriesOf(dynamic: Buffer): {readonly tag: bigint; readonly value: bigint}[] {
  const entries: {readonly tag: bigint; readonly value: bigint}[] = []
  for (let at = 0; at + 16 <= dynamic.length; at += 16) {
    entries.push({tag: dynamic.readBigUInt64LE(at), value: dynamic.readBigUInt64LE(at + 8)})
  }
  return entries
}

/** Where in the file an address is; beyond its end when nowhere. */
function offsetOf(segments: readonly Segment[], address: bigint): number {
  const holder = segments.find(
    ({type, address: start, size}) => type === PT_LOAD && address >= start && address < start + BigInt(size),
  )
  return holder ? holder.offset + Number(address - holder.address) : Number.MAX_SAFE_INTEGER
}

function textAt(bytes: Buffer, offset: number): string {
  if (offset >= bytes.length) return ''
  const end = bytes.indexOf(0, offset)
  return bytes.toString('latin1', offset, end < 0 ? bytes.length : end)
}
