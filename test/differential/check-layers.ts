// Many random layers at once, in the hands of all who unpack or mount them: they must come to the tree of the source.

import {execFile} from 'node:child_process'
import {mkdir} from 'node:fs/promises'
import {join} from 'node:path'
import {promisify} from 'node:util'
import {unmountBelow} from '../../src/lib/mount/mounts.ts'
import {type ConvertedTar, convertCase, describeSeed, expectSame, type LayerCase} from './layer-case.ts'
import {type Listing, listDirectories} from './listing.ts'
import type {Unpacker} from './unpackers.ts'

export interface Peers {
  readonly containerd: Unpacker
  /** Others, whom we follow where they come to the tree of the source as we see it; asked for the layers that `isAsked` takes. */
  readonly others: readonly {
    readonly name: string
    readonly unpack: Unpacker
    isAsked(layer: LayerCase): boolean
  }[]
  /** Empty directories: for what is unpacked, and for what is mounted. */
  readonly directory: string
  readonly images: string
}

/** What the layers were, for a report that says what was compared. */
export interface Tally {
  layers: number
  /** containerd could unpack the source. */
  unpacked: number
  mounted: number
  /** Others that came to the tree of the source, and were compared. */
  readonly agreed: Record<string, number>
}

/** What a peer made of a layer. */
interface Unpacked {
  readonly seed: number
  readonly peer: string
  readonly layer: 'source' | ConvertedTar
  readonly refused: string | undefined
  /** Below the batch's directory. */
  readonly directory: string
}

/** Where the mount of a layer is, in its directory. */
const MOUNT = 'mount'

/** One message for each seed with a difference; it says how to see it again. */
export async function checkLayers(seeds: readonly number[], peers: Peers, tally: Tally): Promise<string[]> {
  const failures: string[] = []
  const fail = (seed: number, cause: unknown) =>
    failures.push(`${describeSeed(seed)}: ${cause instanceof Error ? cause.message : cause}`)
  const base = join(peers.directory, `from-${seeds[0]}`)
  const cases: LayerCase[] = []
  try {
    for (const seed of seeds) {
      const [images, target] = [join(peers.images, `${seed}`), join(base, `${seed}`, MOUNT)]
      await mkdir(images)
      await mkdir(target, {recursive: true})
      tally.layers++
      await convertCase(seed, {images, target}).then(
        each => cases.push(each),
        cause => fail(seed, cause),
      )
    }
    const unpacked = await unpackAll(cases, peers, base)
    const listings = listAll(cases, unpacked, base)
    for (const each of cases) {
      try {
        const own = unpacked.filter(({seed}) => seed === each.seed)
        checkCase(each, own, listings, tally)
      } catch (cause) {
        fail(each.seed, cause)
      }
    }
    return failures
  } finally {
    await unmountBelow(base)
    const images = seeds.map(seed => join(peers.images, `${seed}`))
    await promisify(execFile)('rm', ['-rf', base, ...images])
  }
}

/** Every peer unpacks all that it is asked for in one go. */
async function unpackAll(cases: readonly LayerCase[], peers: Peers, base: string): Promise<Unpacked[]> {
  const all: Unpacked[] = []
  const containerd = {name: 'containerd', unpack: peers.containerd, isAsked: () => true}
  for (const {name: peer, unpack, isAsked} of [containerd, ...peers.others]) {
    const wanted = cases
      .filter(each => isAsked(each) && (each.expected || peer === 'containerd'))
      .flatMap(({seed, expected, source, converted}) => {
        const layers = ['source' as const, ...(expected ? converted : [])]
        return layers.map((layer, index) => {
          const directory = `${seed}/${peer}-${index}`
          return {seed, peer, layer, tar: layer === 'source' ? source : layer.tar, directory}
        })
      })
    for (const {directory} of wanted) await mkdir(join(base, directory))
    const refusals = await unpack(wanted.map(({tar, directory}) => ({tar, directory: join(base, directory)})))
    all.push(...wanted.map((each, index) => ({...each, refused: refusals[index]})))
  }
  return all
}

/** What is in the directories, by their names below `base`. */
function listAll(
  cases: readonly LayerCase[],
  unpacked: readonly Unpacked[],
  base: string,
): ReadonlyMap<string, Listing> {
  const directories = [
    ...unpacked.filter(({refused}) => refused === undefined).map(({directory}) => directory),
    ...cases.filter(({mounted}) => mounted).map(({seed}) => `${seed}/${MOUNT}`),
  ]
  const listings = listDirectories(base, directories)
  return new Map(directories.map((directory, index) => [directory, listings[index]!]))
}

function checkCase(
  {seed, expected, containerd, byContainerd, mounted}: LayerCase,
  unpacked: readonly Unpacked[],
  listings: ReadonlyMap<string, Listing>,
  tally: Tally,
): void {
  const bySource = unpacked.find(({peer, layer}) => peer === 'containerd' && layer === 'source')!
  if (bySource.refused === undefined) {
    tally.unpacked++
    if (containerd === 'refuses') throw new Error('containerd unpacks what has no places')
  } else if (containerd === 'unpacks') throw new Error(`containerd refuses it: ${bySource.refused}`)
  if (!expected) return
  if (mounted) {
    tally.mounted++
    expectSame(`${mounted.format}: the EROFS mount`, listings.get(`${seed}/${MOUNT}`)!, mounted.shown)
  }
  for (const [peer, results] of Map.groupBy(unpacked, each => each.peer)) {
    const source = results.find(({layer}) => layer === 'source')!
    const wanted = peer === 'containerd' ? byContainerd! : expected
    if (peer === 'containerd') {
      if (source.refused !== undefined) continue
      expectSame('containerd, of the source', listings.get(source.directory)!, wanted)
    } else {
      if (!isSame(listings.get(source.directory), wanted)) continue
      tally.agreed[peer] = (tally.agreed[peer] ?? 0) + 1
    }
    for (const {layer, refused, directory} of results) {
      if (layer === 'source') continue
      if (refused !== undefined) throw new Error(`${layer.format}: ${peer} refuses it: ${refused}`)
      expectSame(`${layer.format}: ${peer}`, listings.get(directory)!, wanted)
    }
  }
}

function isSame(one: Listing | undefined, other: Listing): boolean {
  return one?.length === other.length && one.every((line, index) => line === other[index])
}
