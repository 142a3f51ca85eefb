// What the kernel and the dynamic loader read to start a program: its interpreter and its libraries, as the file says.

/** Reads bytes of a file. */
export type ReadAt = (offset: number, length: number) => Promise<Uint8Array>

/** What a program asks for before it runs. */
export interface ProgramNeeds {
  /** A path, and after `#!` what follows it there, such as `/usr/bin/env` and `python3`. */
  readonly interpreters: readonly string[]
  /** Names of libraries (ld.so(8), DT_NEEDED). */
  readonly libraries: readonly string[]
  /** Where its libraries are looked for first (DT_RPATH, DT_RUNPATH), with `$ORIGIN` as the file has it. */
  readonly searchPath: readonly string[]
  /** Of an ELF file. */
  readonly machine: Machine | undefined
}

/** What of a program its libraries have in common with it: elf(5)'s e_machine, and 32 or 64 bits. */
export interface Machine {
  readonly number: number
  readonly bits: 32 | 64
}

const NOTHING: ProgramNeeds = {interpreters: [], libraries: [], searchPath: [], machine: undefined}

const MAGIC = Buffer.from([0x7f, 0x45, 0x4c, 0x46])
const [ELFCLASS32, ELFCLASS64] = [1, 2]
const [ELFDATA_LITTLE, ELFDATA_BIG] = [1, 2]
const [PT_LOAD, PT_DYNAMIC, PT_INTERP] = [1, 2, 3]
const [DT_NEEDED, DT_STRTAB, DT_RPATH, DT_RUNPATH] = [1, 5, 15, 29]
const MAX_SEGMENTS = 64
const MAX_DYNAMIC = 64 << 10
/** File names have no more (NAME_MAX); search paths of several directories do. */
const MAX_NAME = 256
const MAX_SEARCH_PATH = 4096
const MAX_LIBRARIES = 128
/** The kernel reads as much of a script (BINPRM_BUF_SIZE). */
const SCRIPT_LINE = 256

/** Reads a program's file, of which everything is at hand. One that is no program needs nothing. */
export async function programNeeds(read: ReadAt, size: number): Promise<ProgramNeeds> {
  const start = Buffer.from(await read(0, Math.min(size, SCRIPT_LINE)))
  if (start.subarray(0, 2).toString('latin1') === '#!') {
    const [line = ''] = start.subarray(2).toString('latin1').split('\n')
    return {...NOTHING, interpreters: line.trim().split(/\s+/).slice(0, 2)}
  }
  const elf = elfFile(start, read, size)
  return elf ? elfNeeds(elf) : NOTHING
}

/** A file of either size and byte order, and how to read it. */
interface ElfFile {
  readonly header: Buffer
  readonly machine: Machine
  number(bytes: Buffer, offset: number, size: 2 | 4): number
  /** A number of the file's own width; beyond what is exact, as large as any. */
  word(bytes: Buffer, offset: number): number
  /** Nothing, where that is not within the file, or more than `most`. */
  inside(offset: number, length: number, most: number): Promise<Buffer>
  readonly size: number
}

function elfFile(header: Buffer, read: ReadAt, size: number): ElfFile | undefined {
  const [bitness, order] = [header[4], header[5]]
  if (header.length < 64 || !header.subarray(0, 4).equals(MAGIC)) return undefined
  if (bitness !== ELFCLASS32 && bitness !== ELFCLASS64) return undefined
  if (order !== ELFDATA_LITTLE && order !== ELFDATA_BIG) return undefined
  const isLittle = order === ELFDATA_LITTLE
  const bits = bitness === ELFCLASS64 ? 64 : 32
  const number = (bytes: Buffer, offset: number, width: 2 | 4) =>
    isLittle ? bytes.readUIntLE(offset, width) : bytes.readUIntBE(offset, width)
  const wide = (bytes: Buffer, offset: number) =>
    Number(isLittle ? bytes.readBigUInt64LE(offset) : bytes.readBigUInt64BE(offset))
  return {
    header,
    machine: {number: number(header, 18, 2), bits},
    number,
    word: (bytes, offset) => (bits === 64 ? wide(bytes, offset) : number(bytes, offset, 4)),
    inside: async (offset, length, most) => {
      const isInside = length > 0 && length <= most && offset + length <= size
      return isInside ? Buffer.from(await read(offset, length)) : Buffer.alloc(0)
    },
    size,
  }
}

interface Segment {
  readonly type: number
  readonly offset: number
  readonly address: number
  readonly size: number
}

/** Where a program header has its fields, by the file's width. */
const PROGRAM_HEADERS = {
  32: {table: 28, count: 44, size: 32, offset: 4, address: 8, fileSize: 16},
  64: {table: 32, count: 56, size: 56, offset: 8, address: 16, fileSize: 32},
} as const

async function elfNeeds(elf: ElfFile): Promise<ProgramNeeds> {
  const segments = await readSegments(elf)
  const contentsOf = async (type: number, most: number) => {
    const segment = segments.find(candidate => candidate.type === type)
    return segment ? elf.inside(segment.offset, segment.size, most) : Buffer.alloc(0)
  }
  const interpreter = textAt(await contentsOf(PT_INTERP, 4096), 0)
  const dynamic = entriesOf(elf, await contentsOf(PT_DYNAMIC, MAX_DYNAMIC))
  const numberOf = (tag: number) => dynamic.find(entry => entry.tag === tag)?.value
  const strings = offsetOf(segments, numberOf(DT_STRTAB) ?? 0)
  const stringAt = async (value: number, most: number) => {
    const at = strings + value
    return textAt(await elf.inside(at, Math.min(most, elf.size - at), most), 0)
  }
  const needed = dynamic.filter(({tag}) => tag === DT_NEEDED).slice(0, MAX_LIBRARIES)
  const names = await Promise.all(needed.map(({value}) => stringAt(value, MAX_NAME)))
  const path = numberOf(DT_RUNPATH) ?? numberOf(DT_RPATH)
  const searchPath = path === undefined ? '' : await stringAt(path, MAX_SEARCH_PATH)
  return {
    interpreters: interpreter === '' ? [] : [interpreter],
    libraries: names.filter(name => name !== ''),
    searchPath: searchPath.split(':').filter(directory => directory !== ''),
    machine: elf.machine,
  }
}

async function readSegments(elf: ElfFile): Promise<Segment[]> {
  const {header, machine, number, word} = elf
  const fields = PROGRAM_HEADERS[machine.bits]
  const length = number(header, fields.count, 2) * fields.size
  const table = await elf.inside(word(header, fields.table), length, MAX_SEGMENTS * fields.size)
  const segments: Segment[] = []
  for (let at = 0; at < table.length; at += fields.size) {
    segments.push({
      type: number(table, at, 4),
      offset: word(table, at + fields.offset),
      address: word(table, at + fields.address),
      size: word(table, at + fields.fileSize),
    })
  }
  return segments
}

function entriesOf({machine, word}: ElfFile, dynamic: Buffer): {tag: number; value: number}[] {
  const width = machine.bits / 8
  const entries: {tag: number; value: number}[] = []
  for (let at = 0; at + 2 * width <= dynamic.length; at += 2 * width) {
    entries.push({tag: word(dynamic, at), value: word(dynamic, at + width)})
  }
  return entries
}

/** Where in the file an address is; beyond its end when nowhere. */
function offsetOf(segments: readonly Segment[], address: number): number {
  const holder = segments.find(
    ({type, address: start, size}) => type === PT_LOAD && address >= start && address < start + size,
  )
  return holder ? holder.offset + (address - holder.address) : Number.MAX_SAFE_INTEGER
}

function textAt(bytes: Buffer, offset: number): string {
  if (offset >= bytes.length) return ''
  const end = bytes.indexOf(0, offset)
  return bytes.toString('latin1', offset, end < 0 ? bytes.length : end)
}
