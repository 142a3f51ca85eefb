// Random layers, the same for the same seed: every kind of file, spelled in every way that tars have.

import {encodeByteText} from '../../src/lib/io/byte-text.ts'
import {createRandom, type Random} from '../support/random.ts'
import {archive, directory, member, pax} from '../support/tar.ts'

export interface RandomLayer {
  readonly tar: Uint8Array
  /** Some of its paths, in a random order, and one that it does not have. */
  readonly prioritizedPaths: readonly string[]
}

export function randomLayer(seed: number): RandomLayer {
  const random = createRandom(seed + 1)
  const directories = ['']
  const files: string[] = []
  const linked = new Set<string>()
  const members: Uint8Array[] = []
  if (random(3) === 0) members.push(directory('./'))
  for (let count = random(14); count > 0; count--) {
    const name = directories[random(directories.length)]! + randomName(random, members.length)
    members.push(...randomMembers(name, random, {directories, files, linked}))
  }
  const picked = files.filter(() => random(3) === 0)
  return {
    tar: Buffer.concat([archive(...members), Buffer.alloc(random(3) * 512)]),
    prioritizedPaths: [...(random(2) ? picked : picked.reverse()), ...(random(4) ? [] : ['not/there'])],
  }
}

interface Known {
  readonly directories: string[]
  readonly files: string[]
  /** Files with a second name, which must not be replaced any more. */
  readonly linked: Set<string>
}

/** Unique by its number; sometimes with a byte that is no UTF-8 (byte text has them as surrogates), sometimes long. */
function randomName(random: Random, number: number): string {
  const decoration = ['', '-ü', ' <&>', '\u2028', '\udcff', '.'.repeat(3), 'n'.repeat(random(200))]
  return `${number}${decoration[random(decoration.length)]}`
}

function randomMembers(name: string, random: Random, {directories, files, linked}: Known): Uint8Array[] {
  const prefix = ['', '', './', '/'][random(4)]!
  const attributes = {
    mode: random(0o10000),
    uid: random(3) * 1000,
    gid: random(3),
    mtime: random(2) * random(2 ** 31),
    userName: ['', 'root', 'me'][random(3)]!,
  }
  const extensions = randomExtensions(random)
  const spelled = `${prefix}${name}`
  const all = (fields: Parameters<typeof member>[0], body = '') => [
    ...extensions,
    ...(random(12) === 0
      ? [gnuLong('L', spelled), member({...attributes, ...fields, name: 'cut', format: 'gnu'}, body)]
      : named(spelled, name => member({...attributes, ...fields, name}, body))),
  ]
  switch (random(12)) {
    case 0:
    case 1:
      directories.push(`${name}/`)
      return named(`${spelled}/`, name => member({...attributes, typeflag: '5', name}))
    case 2:
      return all({typeflag: '2', linkName: ['nowhere', '../..', '/abs', 'x'.repeat(90)][random(4)]!})
    case 3: {
      const target = files[random(Math.max(1, files.length))]
      if (target === undefined) return []
      linked.add(target)
      return [gnuLong('K', target), ...all({typeflag: '1', linkName: 'cut'})]
    }
    case 4:
      return all({typeflag: ['3', '4', '6'][random(3)]!, devMajor: random(300), devMinor: random(300)})
    case 5:
      return named(`${name.slice(0, name.lastIndexOf('/') + 1)}.wh.gone${random(1000)}`, name =>
        member({name}),
      )
    case 6: {
      const again = files.find(file => !linked.has(file))
      return again === undefined
        ? []
        : named(again, name => member({...attributes, name}, randomBody(random)))
    }
    default:
      files.push(name)
      return all({}, randomBody(random))
  }
}

/** PAX records; now and then global ones, for all files that follow. */
function randomExtensions(random: Random): Uint8Array[] {
  const value = Buffer.alloc(random(40), random(256))
  if (random(5) === 0) return [pax({'SCHILY.xattr.user.a': value, mtime: `${random(1e9)}.${random(1e9)}`})]
  if (random(9) === 0) return [pax({uid: String(5_000_000 + random(9))})]
  if (random(30) === 0) return [pax({gid: String(random(9)), comment: 'all'}, 'g')]
  return []
}

/** A member, after what says its name where a header has no room for it. */
function named(name: string, memberOf: (name: Uint8Array) => Uint8Array): Uint8Array[] {
  const bytes = encodeByteText(name)
  return bytes.length > 90 ? [gnuLong('L', name), memberOf(bytes.subarray(0, 90))] : [memberOf(bytes)]
}

/** A GNU long name (`L`) or long link name (`K`); byte text. */
function gnuLong(typeflag: 'L' | 'K', text: string): Uint8Array {
  const body = Buffer.concat([encodeByteText(text), Buffer.alloc(1)])
  return member({name: '././@LongLink', typeflag, format: 'gnu'}, body)
}

/** Empty, of one block, of many; that compresses well, and that does not. */
function randomBody(random: Random): string {
  const size = [0, 1, 64, 100, 511, 512, 513, random(3000)][random(8)]!
  if (random(2)) return 'text '.repeat(size).slice(0, size)
  return Array.from({length: size}, () => String.fromCharCode(random(128))).join('')
}
