// Layers from a grammar of few names, so that names meet: links, replacements, whiteouts, types, spellings, and the ways in
// which archives say more than a header block holds. The same for the same seed.

import {hasCode} from '../../src/lib/errors/coded-error.ts'
import {placeLayer} from '../../src/lib/vfs/layer-places.ts'
import {createRandom, type Random} from '../support/random.ts'
import {archive, type BlockFields, gnuLong, member, pax} from '../support/tar.ts'
import {sourceEntries} from './source-entries.ts'

export interface GrammarLayer {
  /** What is in it, in words: `a/`, `a→b`, `a=b`, `p|` (a pipe), `c#` (a device), `x`. */
  readonly words: readonly string[]
  readonly tar: Uint8Array
  /** Paths in the order in which they are wanted: some of the layer, some of nobody. */
  readonly wanted: readonly string[]
}

const NAMES = ['a', 'b', 'c', 'x']
/** Of which a layer may have one: two of the same look, and what shells, whiteouts and archives take for something else. */
const ODD_NAMES = [
  'é',
  'e\u0301',
  '名前',
  '😀',
  'a b',
  ' ',
  'a\nb',
  'a\\b',
  '"\'',
  '-r',
  '...',
  '.wh',
  'a.wh.b',
  `long-${'n'.repeat(95)}`,
  `longer-${'n'.repeat(150)}`,
  `longest-${'é'.repeat(123)}`,
]
const MOST_ENTRIES = 14
/** Most bytes of a file: formats with small chunks cut the first, all but the default the second. */
const MOST_BYTES = 700
const MOST_BYTES_OF_LARGE = 9000
/** What a header block holds of a name, in bytes. */
const NAME_SIZE = 100
/** A capability of version 2, as `setcap cap_net_raw+ep` writes it. */
const CAPABILITY = Buffer.from('0100000200200000000000000000000000000000', 'hex')

export function grammarLayer(seed: number): GrammarLayer {
  return new LayerGrammar(createRandom(seed + 1)).layer()
}

type Kind = 'dir' | 'symlink' | 'hardlink' | 'whiteout' | 'fifo' | 'device' | 'file' | 'sparse'

/** The more often a kind stands here, the more of a layer are such. */
const KINDS: readonly Kind[] = [
  ...Array<Kind>(6).fill('dir'),
  ...Array<Kind>(4).fill('symlink'),
  ...Array<Kind>(4).fill('hardlink'),
  ...Array<Kind>(2).fill('whiteout'),
  'fifo',
  'device',
  ...Array<Kind>(6).fill('file'),
]
/** One in so many files. */
const SPARSE_FILES = 40

class LayerGrammar {
  readonly #random: Random
  readonly #names: readonly string[]
  /** A hard link's header repeats what its file's says, so one of each for all. */
  readonly #attributes: BlockFields
  readonly #records: Readonly<Record<string, string>>
  /** Files have a capability, and no hard links: containerd takes it away where a link's header does not repeat it. */
  readonly #hasCapabilities: boolean
  /** Such a layer has nothing that nobody can unpack, as we see it. */
  readonly #isCareful: boolean
  readonly #words: string[] = []
  readonly #members: Uint8Array[] = []
  readonly #used: string[] = []

  constructor(random: Random) {
    this.#random = random
    this.#names = random(3) ? NAMES : [...NAMES, this.#one(ODD_NAMES)]
    this.#isCareful = random(3) > 0
    this.#hasCapabilities = random(12) === 0
    const mtime = 1_000_000_000 + random(1000)
    const mode = random(3) ? 0o644 : this.#one([0, 0o4755, 0o2755, 0o6711, 0o1644, 0o7777])
    this.#attributes = {uid: random(3), gid: random(3), mtime, mode}
    this.#records = random(4)
      ? {}
      : this.#one([
          {mtime: `${mtime}.5`},
          {mtime: `${mtime}.123456789`, atime: '1.000000001', ctime: '2'},
          {mtime: '5000000000.25'},
          {mtime: '0.75'},
          {mtime: '-1.5'},
          {uid: '4000000', gid: '3000000000'},
          {uname: 'röot', gname: 'root'},
        ])
  }

  layer(): GrammarLayer {
    const random = this.#random
    if (random(10) === 0) this.#add('g', pax({comment: 'of no meaning'}, 'g'))
    if (random(12) === 0) {
      const name = this.#one(['stargz.index.json', './.prefetch.landmark', '.no.prefetch.landmark'])
      this.#addFile(name, name, {}, {body: this.#contents()})
    }
    if (random(3) === 0) this.#add('./', member({name: './', typeflag: '5', mode: random(0o1000), uid: 7}))
    for (let count = 1 + random(MOST_ENTRIES); count > 0; count--) {
      const path = this.#path()
      const kind = this.#one(KINDS)
      const isAdded = this.#addEntry(kind === 'file' && random(SPARSE_FILES) === 0 ? 'sparse' : kind, path)
      if (isAdded) this.#used.push(path)
    }
    const wanted = Array.from({length: random(5)}, () => this.#spelling(this.#path()))
    const padding = random(4) ? [] : [new Uint8Array(512 * random(20))]
    return {words: this.#words, tar: Buffer.concat([archive(...this.#members), ...padding]), wanted}
  }

  /** False when it is left out. */
  #addEntry(kind: Kind, path: string): boolean {
    const random = this.#random
    const name = this.#spelling(path)
    switch (kind) {
      case 'dir': {
        const mode = (random(4) ? 0o700 | random(0o100) : random(0o10000)) & ~0o2000
        const fields = {...this.#attributes, typeflag: '5', mode, uid: random(3)}
        return this.#addFile(`${name}/`, random(8) ? `${name}/` : name, fields, {records: this.#xattrs()})
      }
      case 'symlink': {
        const linkName = this.#linkTarget()
        return this.#addFile(`${name}→${short(linkName)}`, name, {typeflag: '2', linkName})
      }
      case 'hardlink': {
        if (this.#hasCapabilities) return false
        const linkName = this.#spelling(this.#used.length > 0 ? this.#one(this.#used) : path)
        return this.#addFile(`${name}=${short(linkName)}`, name, {typeflag: '1', linkName})
      }
      case 'whiteout': {
        const hidden = this.#hiding(path)
        return this.#addFile(hidden, hidden, {}, {body: random(4) ? '' : 'x'})
      }
      case 'fifo':
        return this.#addFile(`${name}|`, name, {typeflag: '6'})
      case 'device': {
        const [devMajor, devMinor] = this.#one([
          [1, 3],
          [1, 3],
          [0, 0],
          [259, 70_000],
        ] as const)
        return this.#addFile(`${name}#`, name, {typeflag: this.#one(['3', '4']), devMajor, devMinor})
      }
      case 'sparse':
        return this.#addSparse(name)
      default: {
        const typeflag = random(12) ? '0' : '\0'
        return this.#addFile(name, name, {typeflag}, {body: this.#contents(), records: this.#xattrs()})
      }
    }
  }

  #contents(): Uint8Array {
    const random = this.#random
    const size = random(3) ? random(4) : random(random(6) ? MOST_BYTES : MOST_BYTES_OF_LARGE)
    if (random(4)) return Buffer.from(`${this.#words.length}`.repeat(size))
    return random(2) ? Buffer.alloc(size) : Buffer.from(Array.from({length: size}, () => random(256)))
  }

  #xattrs(): Readonly<Record<string, string | Uint8Array>> {
    if (this.#random(6)) return {}
    if (this.#hasCapabilities) return {'SCHILY.xattr.security.capability': CAPABILITY}
    return this.#one<Readonly<Record<string, string | Uint8Array>>>([
      {'SCHILY.xattr.user.p': 'v'},
      {'SCHILY.xattr.user.p': 'other', 'SCHILY.xattr.user.q': 'a\0b'},
      {'SCHILY.xattr.trusted.p': 'v'},
      {'SCHILY.xattr.trusted.overlay.opaque': 'y'},
    ])
  }

  /** In the first of GNU's formats, or the last: two stretches of data after holes. */
  #addSparse(name: string): boolean {
    const stretches = [
      [512, 'x'.repeat(512)],
      [2048, 'y'.repeat(this.#random(600))],
    ] as const
    const realSize = 3000
    const body = stretches.map(([, data]) => data).join('')
    const numbers = stretches.flatMap(([offset, data]) => [offset, data.length])
    if (this.#random(2)) {
      const map = `${[stretches.length, ...numbers].join('\n')}\n`.padEnd(512, '\0')
      const records = {
        'GNU.sparse.major': '1',
        'GNU.sparse.minor': '0',
        'GNU.sparse.realsize': `${realSize}`,
        'GNU.sparse.name': name,
      }
      return this.#addFile(`${short(name)}~`, 'GNUSparseFile.0/x', {}, {body: map + body, records})
    }
    const octal = (value: number) => `${value.toString(8).padStart(11, '0')}\0`
    return this.#addFile(
      `${name}~`,
      name,
      {typeflag: 'S', format: 'gnu', sparse: {pairs: numbers.map(octal).join(''), realSize: octal(realSize)}},
      {body},
    )
  }

  /** With what the header block has no room for before it. */
  #addFile(
    word: string,
    name: string,
    fields: BlockFields,
    {
      body = '',
      records = {},
    }: {
      readonly body?: string | Uint8Array
      readonly records?: Readonly<Record<string, string | Uint8Array>>
    } = {},
  ): boolean {
    const {linkName = ''} = fields
    const before: Uint8Array[] = []
    const all = {...this.#records, ...records}
    const isLong = (text: string) => Buffer.byteLength(text) > NAME_SIZE
    const inBlock: {name: string; linkName: string; prefix?: string} = {name, linkName}
    if (isLong(linkName) || this.#random(30) === 0) {
      inBlock.linkName = cut(linkName)
      if (linkName !== '' && this.#random(2)) before.push(gnuLong('K', linkName))
      else if (linkName !== '') Object.assign(all, {linkpath: linkName})
    }
    if (isLong(name) || this.#random(30) === 0) {
      inBlock.name = cut(name)
      const slash = name.lastIndexOf('/', name.length - 2)
      const isSplit =
        slash > 0 && Buffer.byteLength(name.slice(0, slash)) <= 155 && !isLong(name.slice(slash + 1))
      if (isSplit && fields.format === undefined && this.#random(2)) {
        Object.assign(inBlock, {prefix: name.slice(0, slash), name: name.slice(slash + 1)})
      } else if (this.#random(2)) before.push(gnuLong('L', name))
      else Object.assign(all, {path: name})
    }
    if (Object.keys(all).length > 0) before.push(pax(all))
    return this.#add(short(word), ...before, member({...this.#attributes, ...fields, ...inBlock}, body))
  }

  #add(word: string, ...members: readonly Uint8Array[]): boolean {
    if (this.#isCareful && !canBePlaced([...this.#members, ...members])) return false
    this.#words.push(word)
    this.#members.push(...members)
    return true
  }

  #path(): string {
    return this.#used.length > 0 && this.#random(2) ? this.#one(this.#used) : this.#newPath()
  }

  #newPath(): string {
    return Array.from({length: 1 + this.#random(3)}, () => this.#one(this.#names)).join('/')
  }

  #spelling(name: string): string {
    return this.#one([
      name,
      name,
      name,
      name,
      `./${name}`,
      `./${name}`,
      `/${name}`,
      name.replaceAll('/', '//'),
      name.replaceAll('/', '/./'),
      `${this.#one(this.#names)}/../${name}`,
    ])
  }

  #linkTarget(): string {
    const path = this.#newPath()
    return this.#one([
      path,
      path,
      `../${path}`,
      `/${path}`,
      '.',
      '..',
      '/',
      `../../${path}`,
      `./${path}`,
      `${path}/`,
    ])
  }

  #hiding(name: string): string {
    const slash = name.lastIndexOf('/') + 1
    const isOpaque = this.#random(3) === 0
    return isOpaque ? `${name}/.wh..wh..opq` : `${name.slice(0, slash)}.wh.${name.slice(slash)}`
  }

  #one<T>(choices: readonly T[]): T {
    return choices[this.#random(choices.length)]!
  }
}

function canBePlaced(members: readonly Uint8Array[]): boolean {
  try {
    placeLayer(sourceEntries(archive(...members)))
    return true
  } catch (error) {
    if (hasCode(error, 'corrupt')) return false
    throw error
  }
}

/** What is left of a name in a header block that has no room for it; not within a character. */
function cut(name: string): string {
  return name.replaceAll(/[^ -~]/g, '?').slice(0, NAME_SIZE)
}

function short(word: string): string {
  return word.replaceAll(/(.)\1{9,}/g, '$1…')
}
