// How fast a container's file system is once everything is here: walking it, and reading all of it.

import {mkdir} from 'node:fs/promises'
import {join} from 'node:path'
import {execa} from 'execa'
import type {Machine} from './machine.ts'

/** Seconds; cold with the kernel's caches dropped, warm straight after. */
export interface FileFigures {
  readonly coldWalkS: number
  readonly warmWalkS: number
  readonly coldReadS: number
  readonly warmReadS: number
}

/** Mounts the file system of the machine's container once more beside it, read-only; resolves to where. */
export async function mountAgain(machine: Machine, {lazy}: {readonly lazy: boolean}): Promise<string> {
  const target = join(machine.directory, 'files')
  await mkdir(target)
  const snapshots = [...machine.globals, 'snapshots', ...(lazy ? ['--snapshotter', 'stargz'] : [])]
  const {stdout: info} = await execa('ctr', [...snapshots, 'info', 'subject'])
  const {Parent: parent} = JSON.parse(info) as {Parent: string}
  // It prints the command that mounts it.
  const {stdout: mount} = await execa('ctr', [...snapshots, 'view', '--target', target, 'files', parent])
  await execa('sh', ['-c', mount])
  return target
}

/** Measures what is mounted at `directory`. */
export async function measureFiles(directory: string): Promise<FileFigures> {
  const walk = () => seconds(['du', '--summarize', directory])
  const read = () => seconds(['sh', '-c', 'find "$0" -type f -print0 | xargs -0 cat > /dev/null', directory])
  await dropCaches()
  const [coldWalkS, warmWalkS] = [await walk(), await walk()]
  await dropCaches()
  const [coldReadS, warmReadS] = [await read(), await read()]
  return {coldWalkS, warmWalkS, coldReadS, warmReadS}
}

async function seconds([program, ...words]: readonly string[]): Promise<number> {
  const begun = performance.now()
  await execa(program!, words)
  return (performance.now() - begun) / 1000
}

async function dropCaches(): Promise<void> {
  await execa('sh', ['-c', 'sync; echo 3 > /proc/sys/vm/drop_caches'])
}
