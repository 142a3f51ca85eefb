// The dynamic loader's cache, /etc/ld.so.cache (ldconfig(8)): where libraries are, by name.
//
// Of both formats the newer is read, which glibc has written since 1999, alone or behind the older one:
// `glibc-ld.so.cache1.1`, number of libraries, size of the strings, 20 bytes more, then 24 bytes for each library: flags,
// offset of its name, offset of its path. Offsets count from the magic; numbers have the machine's byte order.

const MAGIC = Buffer.from('glibc-ld.so.cache1.1')
const HEADER_SIZE = 48
const ENTRY_SIZE = 24
const MAX_LIBRARIES = 100_000
/** PATH_MAX. */
const MAX_PATH = 4096

/** Larger caches are not read, bytes. */
export const MAX_LIBRARY_CACHE = 8 << 20

/** Paths of libraries by name, as the cache has them in order; none for what is no such file, or for its damaged parts. */
export function parseLibraryCache(bytes: Uint8Array): ReadonlyMap<string, readonly string[]> {
  const libraries = new Map<string, string[]>()
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const start = file.indexOf(MAGIC)
  if (start < 0 || file.length < start + HEADER_SIZE) return libraries
  const cache = file.subarray(start)
  const room = (cache.length - HEADER_SIZE) / ENTRY_SIZE
  // The order that leaves room for as many libraries as it says.
  const isLittle = cache.readUInt32LE(20) <= room
  const numberAt = (at: number) => (isLittle ? cache.readUInt32LE(at) : cache.readUInt32BE(at))
  const count = Math.min(numberAt(20), Math.floor(room), MAX_LIBRARIES)
  for (let index = 0; index < count; index++) {
    const at = HEADER_SIZE + index * ENTRY_SIZE
    const [name, path] = [textAt(cache, numberAt(at + 4)), textAt(cache, numberAt(at + 8))]
    if (name === '' || !path.startsWith('/')) continue
    const known = libraries.get(name)
    if (known) known.push(path)
    else libraries.set(name, [path])
  }
  return libraries
}

function textAt(cache: Buffer, offset: number): string {
  if (offset < HEADER_SIZE || offset >= cache.length) return ''
  const end = cache.subarray(offset, offset + MAX_PATH).indexOf(0)
  return end < 0 ? '' : cache.toString('latin1', offset, offset + end)
}
