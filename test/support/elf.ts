// ELF files of any machine that only say what they need (elf(5)): a program header table, an interpreter, a dynamic section.

export interface ElfSketch {
  readonly bits?: 32 | 64
  readonly order?: 'little' | 'big'
  /** e_machine; x86-64 without. */
  readonly machine?: number
  readonly interpreter?: string
  readonly libraries?: readonly string[]
  /** DT_RUNPATH. */
  readonly searchPath?: string
}

export function elfProgram(sketch: ElfSketch): Buffer {
  const {bits = 64, order = 'little', machine = 62, interpreter = '', libraries = [], searchPath} = sketch
  const isLittle = order === 'little'
  const bytes = Buffer.alloc(4096)
  const put = (at: number, value: number, size: number) => {
    const low = isLittle ? at : at + size - Math.min(size, 4)
    if (isLittle) bytes.writeUIntLE(value, low, Math.min(size, 4))
    else bytes.writeUIntBE(value, low, Math.min(size, 4))
  }
  const width = bits / 8
  Buffer.from([0x7f, 0x45, 0x4c, 0x46, bits / 32, isLittle ? 1 : 2, 1]).copy(bytes)
  put(18, machine, 2)
  const tableAt = 64
  put(bits === 64 ? 32 : 28, tableAt, width)
  put(bits === 64 ? 56 : 44, 3, 2)
  const [interpreterAt, stringsAt, dynamicAt] = [512, 1024, 2048]
  const address = 0x1000
  bytes.write(`${interpreter}\0`, interpreterAt, 'latin1')
  let end = stringsAt + 1
  const entries: [number, number][] = [[5, address + stringsAt]]
  const addString = (tag: number, text: string) => {
    entries.push([tag, end - stringsAt])
    end += bytes.write(`${text}\0`, end, 'latin1')
  }
  for (const name of libraries) addString(1, name)
  if (searchPath !== undefined) addString(29, searchPath)
  for (const [index, [tag, value]] of entries.entries()) {
    put(dynamicAt + index * 2 * width, tag, width)
    put(dynamicAt + (index * 2 + 1) * width, value, width)
  }
  const segments = [
    {type: 1, offset: 0, size: bytes.length},
    {type: 2, offset: dynamicAt, size: (entries.length + 1) * 2 * width},
    {type: interpreter === '' ? 0 : 3, offset: interpreterAt, size: interpreter.length + 1},
  ]
  for (const [index, {type, offset, size}] of segments.entries()) {
    const at = tableAt + index * (bits === 64 ? 56 : 32)
    put(at, type, 4)
    put(at + (bits === 64 ? 8 : 4), offset, width)
    put(at + (bits === 64 ? 16 : 8), address + offset, width)
    put(at + (bits === 64 ? 32 : 16), size, width)
  }
  return bytes
}

/** An /etc/ld.so.cache with these libraries: name and path. */
export function libraryCache(
  libraries: readonly (readonly [string, string])[],
  order: 'little' | 'big' = 'little',
): Buffer {
  const start = 48 + libraries.length * 24
  const bytes = Buffer.alloc(start + libraries.flat().reduce((size, text) => size + text.length + 1, 0))
  const put = (at: number, value: number) =>
    order === 'little' ? bytes.writeUInt32LE(value, at) : bytes.writeUInt32BE(value, at)
  bytes.write('glibc-ld.so.cache1.1', 'latin1')
  put(20, libraries.length)
  put(24, bytes.length - start)
  let end = start
  for (const [index, texts] of libraries.entries()) {
    for (const [place, text] of texts.entries()) {
      put(48 + index * 24 + 4 + place * 4, end)
      end += bytes.write(`${text}\0`, end, 'latin1')
    }
  }
  return bytes
}
