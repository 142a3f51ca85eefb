// What many lazily mounted images cost a machine: the snapshotter's memory, and its cache on disk.

import {join} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import {execa} from 'execa'
import {descendants, rssOf, sum} from '../convert/measure.ts'
import {OURS, startMachine} from './machine.ts'
import {CONTENDERS, layerStatus, pull, type StartOptions, untilFilled} from './start-container.ts'
import type {Subject} from './subjects.ts'

/** Bytes. */
export interface Resident {
  readonly images: number
  readonly mounts: number
  /** The snapshotter's memory: the most while it pulled and filled, and once everything was here and quiet. */
  readonly busyRss: number
  readonly quietRss: number
  /** What the cache takes on disk, and the files that are in it, each padded to whole blocks. */
  readonly cacheBytes: number
  readonly fileBytes: number
}

/** How long after the last byte it is quiet. */
const QUIET_MS = 10_000

/** Pulls all lazy images of the subjects into one machine, and waits until everything is here. */
export async function measureResident(
  subjects: readonly Subject[],
  {directory, address, config}: Pick<StartOptions, 'directory' | 'address' | 'config'>,
): Promise<Resident> {
  await using machine = await startMachine(directory, {programs: OURS, config})
  const rss = () => sum([...descendants(machine.snapshotter!)].map(rssOf))
  let busyRss = 0
  const sampler = setInterval(() => {
    busyRss = Math.max(busyRss, rss())
  }, 50)
  const lazy = CONTENDERS.filter(contender => contender.lazy)
  for (const contender of lazy) {
    for (const {name} of subjects) await pull(machine, contender, `${address}/${name}:${contender.tag}`)
  }
  await untilFilled(() => layerStatus(machine))
  clearInterval(sampler)
  const layers = await layerStatus(machine)
  await sleep(QUIET_MS)
  const sizes = new Map(layers.map(({digest, deviceSize}) => [digest, deviceSize]))
  const cache = join(directory, 'stargz/stargz/layers')
  const {stdout} = await execa('du', ['--summarize', '--one-file-system', '--block-size=1', cache])
  return {
    images: lazy.length * subjects.length,
    mounts: layers.length,
    busyRss,
    quietRss: rss(),
    cacheBytes: Number.parseInt(stdout, 10),
    fileBytes: sum([...sizes.values()]),
  }
}

/** As a sentence. */
export function describeResident({images, mounts, ...bytes}: Resident): string {
  const mb = (value: number) => `${(value / 1e6).toFixed(0)} MB`
  const memory = `the snapshotter has ${mb(bytes.quietRss)} resident, and had ${mb(bytes.busyRss)} at most`
  return `${images} images, ${mounts} mounts, all filled: ${memory}; ${mb(bytes.cacheBytes)} on disk for ${mb(bytes.fileBytes)} of files`
}
