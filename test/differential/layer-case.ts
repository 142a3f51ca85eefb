// One random layer, converted into formats of every family: what readers of the TOC make of it, and a real mount, must be
// the tree of the source. What is left to compare are the tars, which others unpack.

import {writeFileSync} from 'node:fs'
import {join} from 'node:path'
import {expect} from 'vitest'
import {LAYER_FORMATS} from '../../src/daemons/lazy-layers/layer-formats.ts'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {hasCode} from '../../src/lib/errors/coded-error.ts'
import {isDescribing} from '../../src/lib/estargz/landmark.ts'
import {readFile} from '../../src/lib/estargz/open-layer.ts'
import {parseTree} from '../../src/lib/layer/parse-layer.ts'
import {layOutDevice} from '../../src/lib/layer/toc-tree.ts'
import {mountErofs} from '../../src/lib/mount/mount-erofs.ts'
import {tocDigestOf} from '../../src/lib/oci/annotations.ts'
import type {Digest} from '../../src/lib/oci/digest.ts'
import {payloadOffsetOf, type TarEntry} from '../../src/lib/tar/tar-entry.ts'
import {verifyLayer} from '../../src/lib/verify/verify-layer.ts'
import {LayerPlaces, type PlacedLayer, type PlaceNode, placeLayer} from '../../src/lib/vfs/layer-places.ts'
import {treeOfLayer} from '../../src/lib/vfs/layer-tree.ts'
import {
  type BuiltLayer,
  codec,
  decompressed,
  FORMATS,
  type LayerFormat,
  openBuilt,
} from '../conformance/formats.ts'
import {parseWithBoth} from '../support/both-parsers.ts'
import {memoryBlob} from '../support/memory-content.ts'
import {type Listing, listTree} from './listing.ts'
import {grammarLayer} from './random-entries.ts'
import {contentsDigest, sourceEntries} from './source-entries.ts'

/** A converted layer, to be unpacked. */
export interface ConvertedTar {
  readonly format: string
  readonly tar: Uint8Array
}

/** What came of a layer. */
export interface LayerCase {
  readonly seed: number
  readonly source: Uint8Array
  /**
   * Whether GNU tar does what nobody else does: it follows `..` in names, from which others take it away with the name before;
   * and of a directory that comes by two spellings (`x/`, `./x/`) it sets the attributes for each, the older ones last.
   */
  readonly puzzlesTar: boolean
  /** The tree that everybody must come to; undefined where nobody can unpack the layer. */
  readonly expected: Listing | undefined
  /** What containerd does with the source, and what it comes to. */
  readonly containerd: 'unpacks' | 'refuses' | 'does either'
  readonly byContainerd: Listing | undefined
  /** Those whose own entries are others than the source's. */
  readonly converted: readonly ConvertedTar[]
  /** Where one of the formats is mounted. */
  readonly mounted:
    | {
        readonly format: string
        readonly target: string
        /** As `expected`, with times as the format has them. */
        readonly shown: Listing
      }
    | undefined
}

const isZstd = ({name}: LayerFormat) => name.startsWith('zstd')

/** Formats that differ in details are of one family, of which every layer takes one. */
const FAMILIES = [
  FORMATS.filter(format => format.isOrdered && !isZstd(format)),
  FORMATS.filter(format => format.isOrdered && isZstd(format)),
  FORMATS.filter(({isLazy, keepsTar}) => isLazy && keepsTar),
  FORMATS.filter(({isLazy}) => !isLazy),
]

/** What a failure is about: the layer in words, and the command that makes it again. */
export function describeSeed(seed: number): string {
  const {words, wanted} = grammarLayer(seed)
  return `SEED=${seed} LAYERS=1 npx vitest run test/differential: [${words.join(' ')}], wanted [${wanted.join(' ')}]`
}

/** Empty directories for a layer. */
export interface CaseDirectories {
  /** On a file system that holds what EROFS mounts. */
  readonly images: string
  readonly target: string
}

/** Converts the layer of a seed. Whoever calls unmounts what is mounted, if it fails, too. */
export async function convertCase(seed: number, directories: CaseDirectories): Promise<LayerCase> {
  const {tar: source, wanted} = grammarLayer(seed)
  const entries = sourceEntries(source)
  const placed = placeOrRefuse(entries)
  const expected = placed && listingOf(placed, source)
  const rounded = placed && listingOf(withTimes(placed, roundTime), source)
  const seen = new Set([ownBytes(source)])
  const converted: ConvertedTar[] = []
  let mounted: LayerCase['mounted']
  for (const [index, family] of FAMILIES.entries()) {
    const format = family[seed % family.length]!
    try {
      if (format.isLazy && format.keepsTar && entries.some(mustChange)) {
        await expect(format.build(source, wanted)).rejects.toMatchObject({code: 'failed-precondition'})
        continue
      }
      const built = await format.build(source, wanted)
      const tar = await decompressed(built)
      if (format.keepsTar) expect(Buffer.compare(tar, source), 'the tar is the source').toBe(0)
      const own = ownBytes(tar)
      if (!seen.has(own)) converted.push({format: format.name, tar})
      seen.add(own)
      if (!format.isLazy) continue
      const shown = isZstd(format) ? expected : rounded
      const reader = await readLazily(built, shown)
      if (reader && index === seed % (FAMILIES.length - 1)) {
        await mountLayer(reader, directories)
        mounted = {format: format.name, target: directories.target, shown: shown!}
      }
    } catch (cause) {
      throw new Error(`${format.name}: ${cause instanceof Error ? cause.message : cause}`, {cause})
    }
  }
  const climbs = entries.some(({name, type, linkName}) => climbsIn(name) || isClimbingLink({type, linkName}))
  const containerd = containerdOf(placed, entries)
  const byContainerd = placed && listingOf(withTimes(placed, boundTime), source)
  const puzzlesTar = climbs || hasRespelledDirectory(entries)
  return {seed, source, puzzlesTar, expected, containerd, byContainerd, converted, mounted}
}

function climbsIn(name: string): boolean {
  return name.split('/').includes('..')
}

function isClimbingLink({type, linkName}: Pick<TarEntry, 'type' | 'linkName'>): boolean {
  return type === 'hardlink' && climbsIn(linkName)
}

function hasRespelledDirectory(entries: readonly TarEntry[]): boolean {
  const spellings = new Map<string, string>()
  return entries.some(({type, name, path}) => {
    if (type !== 'dir') return false
    const known = spellings.get(path)
    spellings.set(path, name)
    return known !== undefined && known !== name
  })
}

/** What no conversion leaves as it is: sparse files, and what an earlier one added. */
function mustChange({sparse, path}: TarEntry): boolean {
  return sparse !== undefined || isDescribing(path)
}

interface LazyReader {
  readonly open: Awaited<ReturnType<typeof openBuilt>>
  readonly layout: ReturnType<typeof layOutDevice>
  readonly image: Uint8Array
}

/** Reads the TOC as all our readers do. */
async function readLazily(built: BuiltLayer, expected: Listing | undefined): Promise<LazyReader | undefined> {
  const {bytes, externalToc, descriptor, diffId} = built
  const verified = await verifyLayer(memoryBlob(bytes), descriptor, {codec, diffId, externalToc})
  const kinds = new Set(verified.findings.map(({kind}) => kind))
  // What is wrong with the source is wrong with what comes of it.
  const isAllowed = (kind: string) => kind === 'unpack' || kind === 'whiteout'
  expect(
    verified.findings.filter(({kind}) => !isAllowed(kind)),
    'verify',
  ).toEqual([])
  const open = await openBuilt(built)
  const task = {
    where: 'the layer',
    blobSize: bytes.length,
    tail: bytes,
    externalToc,
    tocDigest: tocDigestOf(descriptor.annotations) as Digest | undefined,
    wantsImage: true,
  }
  if (!expected) {
    expect([...kinds], 'verify').toContain(kinds.has('unpack') ? 'unpack' : 'whiteout')
    await expect(parseTree(task, LAYER_FORMATS, {})).rejects.toThrow(
      expect.objectContaining({code: 'corrupt'}),
    )
    expect(await parseWithBoth(task)).toMatchObject({code: 'corrupt'})
    return undefined
  }
  expect(kinds, 'verify').not.toContain('unpack')
  const layout = layOutDevice(open.allFiles.filter(({path}) => !isDescribing(path)))
  const digests = new Map(layout.files.map(({file, deviceOffset}) => [deviceOffset, file.entry.digest!]))
  const tree = await parseTree(task, LAYER_FORMATS, {})
  expectSame(
    'the tree of the TOC',
    listTree(tree, offset => digests.get(offset)!),
    expected,
  )
  const parsed = await parseWithBoth(task)
  if (!('image' in parsed)) throw new Error(parsed.message)
  return {open, layout, image: parsed.image!}
}

/** Mounts the image over contents that were read file by file. */
async function mountLayer(
  {open, layout, image}: LazyReader,
  {images, target}: CaseDirectories,
): Promise<void> {
  const device = new Uint8Array(layout.size)
  for (const {file, deviceOffset} of layout.files) {
    let at = deviceOffset
    for await (const part of readFile(open, file)) {
      device.set(part, at)
      at += part.length
    }
  }
  const [imagePath, data] = [join(images, 'image'), join(images, 'data')]
  writeFileSync(imagePath, image)
  writeFileSync(data, device)
  mountErofs({image: imagePath, data, target})
}

/** Throws with the lines that differ. */
export function expectSame(who: string, listing: Listing, expected: Listing): void {
  const [lines, others] = [new Set(listing), new Set(expected)]
  const differing = [
    ...listing.filter(line => !others.has(line)).map(line => `+ ${line}`),
    ...expected.filter(line => !lines.has(line)).map(line => `- ${line}`),
  ]
  if (differing.length > 0) throw new Error([who, ...differing].join('\n'))
}

function containerdOf(
  placed: PlacedLayer<TarEntry> | undefined,
  entries: readonly TarEntry[],
): LayerCase['containerd'] {
  if (placed) return isQuirk(placed) ? 'does either' : 'unpacks'
  // It takes `..` back from a name that is not there, too.
  return linksToWhiteout(entries) || entries.some(isClimbingLink) ? 'does either' : 'refuses'
}

function placeOrRefuse(entries: readonly TarEntry[]): PlacedLayer<TarEntry> | undefined {
  try {
    return placeLayer(entries)
  } catch (error) {
    if (hasCode(error, 'corrupt')) return undefined
    throw error
  }
}

/**
 * Whether the first entry without a place is a hard link to what the layer takes away: containerd on overlayfs makes a device of
 * a whiteout and links that, so that the link takes its own name away, too; on every other file system, and for all others who
 * unpack, nothing is there to be linked.
 */
function linksToWhiteout(entries: readonly TarEntry[]): boolean {
  const places = new LayerPlaces<TarEntry>()
  for (const entry of entries) {
    try {
      places.place(entry)
    } catch (error) {
      if (!hasCode(error, 'corrupt')) throw error
      return entry.type === 'hardlink' && places.find(entry.linkName)?.kind === 'whiteout'
    }
  }
  return false
}

/** Whether something is put or hidden below a name while that is hidden and nothing else. */
function hasNamesBelowWhiteouts(entries: PlacedLayer<TarEntry>['entries']): boolean {
  const hidden = new Map<PlaceNode<TarEntry>, Set<string>>()
  for (const {role, node} of entries) {
    for (let at = role === 'opaque' ? node : node.parent; at?.parent; at = at.parent) {
      if (hidden.get(at.parent)?.has(at.name)) return true
    }
    const names = hidden.get(node.parent!) ?? new Set()
    if (role === 'whiteout') hidden.set(node.parent!, names.add(node.name))
    if (role === 'node') names.delete(node.name)
  }
  return false
}

/**
 * What containerd refuses although every name has its place: a whiteout of what is there; something below one, where its
 * parents are made; times of directories, which it sets in the end by their names, whatever those lead to then; and
 * sparse files of GNU's own type.
 */
function isQuirk({entries, places}: PlacedLayer<TarEntry>): boolean {
  return (
    entries.some(({entry, role, node}) => role === 'whiteout' && node.entry !== entry) ||
    hasNamesBelowWhiteouts(entries) ||
    entries.some(({entry, node}) => entry.type === 'dir' && places.find(entry.path) !== node) ||
    entries.some(({entry}) => entry.sparse)
  )
}

function listingOf({entries}: PlacedLayer<TarEntry>, tar: Uint8Array): Listing {
  const digests = new Map(entries.map(({entry}) => [payloadOffsetOf(entry), contentsDigest(entry, tar)]))
  return listTree(treeOfLayer(entries, payloadOffsetOf), offset => digests.get(offset)!)
}

interface Time {
  readonly mtimeSeconds: number
  readonly mtimeNanoseconds: number
}

function withTimes(
  {entries, places}: PlacedLayer<TarEntry>,
  change: (time: Time) => Time,
): PlacedLayer<TarEntry> {
  const changed = entries.map(placed => ({...placed, entry: {...placed.entry, ...change(placed.entry)}}))
  return {entries: changed, places}
}

/** eStargz has no fractions of seconds; and the first second of the epoch is no time to it. */
function roundTime({mtimeSeconds, mtimeNanoseconds}: Time): Time {
  const isLater = mtimeSeconds !== 0 && mtimeNanoseconds >= 500_000_000
  return {mtimeSeconds: mtimeSeconds + (isLater ? 1 : 0), mtimeNanoseconds: 0}
}

/** containerd sets no time before the epoch. */
function boundTime(time: Time): Time {
  return time.mtimeSeconds < 0 ? {mtimeSeconds: 0, mtimeNanoseconds: 0} : time
}

/** Most formats have one tar but for its TOC. */
function ownBytes(tar: Uint8Array): string {
  const own = sourceEntries(tar).filter(({path}) => !isDescribing(path))
  return digestOf(
    Buffer.concat(own.map(entry => tar.subarray(entry.headerOffset, payloadOffsetOf(entry) + entry.size))),
  )
}
