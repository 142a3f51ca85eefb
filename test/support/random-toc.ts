// Random TOCs, the same for the same seed: few names, so that they meet, of every kind of entry, whole or damaged.

import {createRandom, type Random} from './random.ts'

const DIGESTS = ['0a', 'ff', '5e'].map(byte => `sha256:${byte.repeat(32)}`)

/** Where the members of such a TOC's layer end. */
export const RANDOM_DATA_END = 10_000

/** A TOC in which nothing is wrong but what names lead to. */
export function randomToc(seed: number): Uint8Array {
  const random = createRandom(seed + 1)
  const entries = Array.from({length: random(16)}, () => randomEntries(random)).flat()
  return Buffer.from(JSON.stringify({version: 1, entries}, undefined, ['', '\t'][random(2)]))
}

/** A random TOC with some bytes replaced, removed, doubled or taken from elsewhere. */
export function damagedToc(seed: number): Uint8Array {
  const random = createRandom(seed + 100_000)
  let bytes = Buffer.from(randomToc(seed))
  for (let count = 1 + random(4); count > 0 && bytes.length > 0; count--) {
    const at = random(bytes.length)
    const size = 1 + random(random(8) ? 6 : bytes.length)
    const from = random(bytes.length)
    const put = [
      () => Buffer.from([random(256)]),
      () => Buffer.alloc(0),
      () => bytes.subarray(from, from + size),
      () => Buffer.from(TOKENS[random(TOKENS.length)]!),
    ][random(4)]!()
    bytes = Buffer.concat([bytes.subarray(0, at), put, bytes.subarray(at + random(size))])
  }
  return bytes
}

/** What JSON and its readers are sensitive to. */
const TOKENS = [
  ...'{}[],:"\\ \0',
  ...[
    'null',
    'true',
    '-0',
    '1e3',
    '0.5',
    '9007199254740993',
    '"entries":[',
    '],"version":1',
    '"size":',
    '"xattrs":{"a":""}',
  ],
  ...[
    '\\u0000',
    '\\ud800',
    '\\udc80',
    '\\udcff',
    '\u00e9',
    '"name":"a",',
    '"type":"chunk",',
    '"chunkSize":3,',
    '},{',
  ],
]

function randomEntries(random: Random): Record<string, unknown>[] {
  const type = ['dir', 'dir', 'symlink', 'symlink', 'hardlink', 'char', 'fifo', 'reg', 'reg', 'reg', 'reg'][
    random(11)
  ]!
  const name = randomName(random)
  const common = {
    name,
    type,
    ...maybe(random, 'mode', () => random(0o10000)),
    ...maybe(random, 'uid', () => random(70_000)),
    ...maybe(
      random,
      'modtime',
      () => `20${10 + random(20)}-0${1 + random(9)}-1${random(10)}T03:04:05${random(2) ? '' : '.25'}Z`,
    ),
    ...maybe(random, 'xattrs', () => randomXattrs(random)),
  }
  if (type === 'symlink' || type === 'hardlink') return [{...common, linkName: randomTarget(random)}]
  if (type === 'char') return [{...common, devMajor: random(300), devMinor: random(300)}]
  return type === 'reg' ? randomFile(random, common) : [common]
}

function randomFile(random: Random, common: Record<string, unknown>): Record<string, unknown>[] {
  const size = random(3) * random(9000)
  if (size === 0) return [common]
  const count = 1 + (random(3) ? 0 : random(4))
  const chunkSize = Math.ceil(size / count)
  const chunks: Record<string, unknown>[] = []
  for (let chunkOffset = 0; chunkOffset < size; chunkOffset += chunkSize) {
    chunks.push({
      ...(chunkOffset === 0 ? {...common, size} : {name: common.name, type: 'chunk', chunkOffset}),
      offset: random(RANDOM_DATA_END),
      ...maybe(random, 'innerOffset', () => random(5000)),
      ...(chunkOffset + chunkSize < size ? {chunkSize} : {}),
      [count === 1 && random(2) ? 'digest' : 'chunkDigest']: DIGESTS[random(DIGESTS.length)],
    })
  }
  return chunks
}

function randomName(random: Random): string {
  const parts = Array.from({length: 1 + random(3)}, () => 'abc'[random(3)]!)
  const base = ['', '', '', '', '.wh.', '.wh..wh.', 'n\udcff'][random(7)]!
  const name = [...parts.slice(0, -1), random(25) ? base + parts.at(-1) : '.wh..wh..opq'].join('/')
  return `${['', '', './', '/', 'x/../'][random(5)]}${name}${random(4) ? '' : '/'}`
}

function randomTarget(random: Random): string {
  const parts = Array.from(
    {length: 1 + random(3)},
    () => ['a', 'b', 'c', 'a', 'b', '..', '.', ''][random(8)]!,
  )
  return `${random(3) ? '' : '/'}${parts.join('/')}`
}

function randomXattrs(random: Random): Record<string, string> {
  const names = [
    'user.a',
    'user.b',
    'trusted.overlay.opaque',
    'security.capability',
    'other',
    '7',
    'system.posix_acl_access',
  ]
  const picked = names.filter(() => random(3) === 0)
  return Object.fromEntries(
    picked.map(name => [name, Buffer.alloc(random(9), random(256)).toString('base64')]),
  )
}

function maybe(random: Random, key: string, value: () => unknown): Record<string, unknown> {
  return random(3) ? {} : {[key]: value()}
}
