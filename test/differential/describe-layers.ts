// The differential fuzzer's suite, in parts for several processes: layers from a grammar, converted with random prioritised
// paths, as containerd, GNU tar, umoci and our own mounts show them. By hand:
// `SEED=2000 LAYERS=200000 npx vitest run test/differential`.

import {mkdir, mkdtemp, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {expect, it} from 'vitest'
import {MS_NOSUID, mount, unmount} from '../../src/lib/native/system-calls.ts'
import {describeWith} from '../support/requires.ts'
import {checkLayers, type Tally} from './check-layers.ts'
import type {LayerCase} from './layer-case.ts'
import {prepareTar, startContainerdUnpacker, unpackWithUmoci} from './unpackers.ts'

const FIRST_SEED = Number(process.env.SEED ?? 0)
const LAYERS = Number(process.env.LAYERS ?? 2000)
const PARTS = 4
/** Layers that peers unpack in one go. */
const BATCH = 25
/** More failures would be of the same kinds. */
const MOST_FAILURES = 20
/** A process for each of its layers. */
const EVERY_UMOCI = 16

/** One of four parts, from 0. */
export function describeLayers(part: number): void {
  const [start, end] = [part, part + 1].map(each => FIRST_SEED + Math.floor((LAYERS * each) / PARTS)) as [
    number,
    number,
  ]
  describeWith(['root', 'containerd', 'getfattr', 'umoci'], 'layers from a grammar', () => {
    it.runIf(end > start)('are the same to all who unpack or mount them', {timeout: LAYERS * 10_000}, () =>
      checkSeeds(start, end),
    )
  })
}

async function checkSeeds(start: number, end: number): Promise<void> {
  const tally: Tally = {layers: 0, unpacked: 0, mounted: 0, agreed: {}}
  const images = await mkdtemp(join(tmpdir(), 'ctr-remote-differential-'))
  const directory = join(images, 'memory')
  await mkdir(directory)
  // containerd waits for the disk at every layer.
  mount({source: 'tmpfs', target: directory, type: 'tmpfs', flags: MS_NOSUID, data: 'mode=755'})
  try {
    await using containerd = await startContainerdUnpacker(join(directory, 'containerd'))
    const peers = {
      directory,
      images,
      containerd: containerd.unpack,
      others: [
        {
          name: 'tar',
          unpack: await prepareTar(join(directory, 'tools')),
          isAsked: ({puzzlesTar}: LayerCase) => !puzzlesTar,
        },
        {name: 'umoci', unpack: unpackWithUmoci, isAsked: ({seed}: LayerCase) => seed % EVERY_UMOCI === 0},
      ],
    }
    const failures: string[] = []
    for (let seed = start; seed < end && failures.length < MOST_FAILURES; seed += BATCH) {
      const seeds = Array.from({length: Math.min(BATCH, end - seed)}, (_, index) => seed + index)
      const found = await checkLayers(seeds, peers, tally)
      failures.push(...found)
      if (!process.env.LAYERS) continue
      // A long run may be ended before its end.
      for (const message of found) console.error(message)
      if (tally.layers % 1000 === 0) console.log(`up to ${seed + BATCH - 1}`, JSON.stringify(tally))
    }
    if (failures.length) throw new Error(failures.join('\n\n'))
  } finally {
    unmount(directory)
    await rm(images, {recursive: true, force: true})
  }
  // Not too many of the layers may be such that there is nothing to compare; of a few, nobody knows.
  if (process.env.LAYERS) return
  expect(tally.unpacked).toBeGreaterThan(tally.layers / 4)
  expect(tally.mounted).toBeGreaterThan(tally.layers / 4)
  expect(tally.agreed.tar).toBeGreaterThan(tally.layers / 8)
  expect(tally.agreed.umoci).toBeGreaterThan(0)
}
