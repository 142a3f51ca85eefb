// Random layers, the same for the same seed: every kind of file, spelled in every way that tars have.

import {archive, directory, gnuLong, member, pax} from '../support/tar.ts'

export interface RandomLayer {
  readonly tar: Uint8Array
  /** Some of its paths, in a random order, and one that it does not have. */
  readonly prioritizedPaths: readonly string[]
}

/** Whole numbers from 0 to below `limit`. */
export type Random = (limit: number) => number

export function createRandom(seed: number): Random {
  let state = (Math.imul(seed, 2_654_435_761) ^ 0x9e3779b9) >>> 0
  return limit => {
    // xorshift32: seeds beside each other must not give trees like each other.
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % limit
  }
}

export function randomLayer(seed: number): RandomLayer {
  const random = createRandom(seed + 1)
  const directories = ['']
  const files: string[] = []
  const members: Uint8Array[] = []
  if (random(3) === 0) members.push(directory('./'))
  for (let count = random(14); count > 0; count--) {
    const name = directories[random(directories.length)]! + randomName(random, members.length)
    members.push(...randomMembers(name, random, {directories, files}))
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
}

/** Unique by its number; sometimes with bytes that are no UTF-8, sometimes long. */
function randomName(random: Random, number: number): string {
  const decoration = ['', '-ü', ' <&>', '\u2028', '.'.repeat(3), 'n'.repeat(random(70))]
  return `${number}${decoration[random(decoration.length)]}`
}

function randomMembers(name: string, random: Random, {directories, files}: Known): Uint8Array[] {
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
      : [...longName(spelled), member({...attributes, ...fields, name: spelled.slice(0, 90)}, body)]),
  ]
  switch (random(12)) {
    case 0:
    case 1:
      directories.push(`${name}/`)
      return [
        ...longName(`${spelled}/`),
        member({...attributes, typeflag: '5', name: `${spelled}/`.slice(0, 90)}),
      ]
    case 2:
      return all({typeflag: '2', linkName: ['nowhere', '../..', '/abs', 'x'.repeat(90)][random(4)]!})
    case 3: {
      const target = files[random(Math.max(1, files.length))]
      return target === undefined
        ? []
        : [...linkTo(target), ...all({typeflag: '1', linkName: target.slice(0, 90)})]
    }
    case 4:
      return all({typeflag: ['3', '4', '6'][random(3)]!, devMajor: random(300), devMinor: random(300)})
    case 5:
      return [member({name: `${name.slice(0, name.lastIndexOf('/') + 1)}.wh.${random(100)}${'x'.repeat(5)}`})]
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

/** A name for which a header has no room. A PAX header before it replaces those of `extensions` nowhere: it comes last. */
function longName(name: string): Uint8Array[] {
  return Buffer.byteLength(name) > 90 ? [gnuLong('L', name)] : []
}

function linkTo(target: string): Uint8Array[] {
  return Buffer.byteLength(target) > 90 ? [gnuLong('K', target)] : []
}

/** Empty, of one block, of many; that compresses well, and that does not. */
function randomBody(random: Random): string {
  const size = [0, 1, 64, 100, 511, 512, 513, random(3000)][random(8)]!
  if (random(2)) return 'text '.repeat(size).slice(0, size)
  return Array.from({length: size}, () => String.fromCharCode(random(128))).join('')
}
