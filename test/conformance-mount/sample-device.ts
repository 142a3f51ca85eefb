// A lazy device whose data arrive when they are read, as a registry's would.

import {closeSync, ftruncateSync, openSync, writeSync} from 'node:fs'
import {join} from 'node:path'
import {CodedError} from '../../src/lib/errors/coded-error.ts'
import {createChunkBitmap} from '../../src/lib/io/chunk-bitmap.ts'
import type {LazyDevice} from '../../src/lib/layer/ports.ts'
import type {SampleLayer} from './sample-layer.ts'

export interface SampleDevice extends LazyDevice {
  /** How many blocks of 4 KiB have arrived. */
  presentBlocks(): number
  /** Ranges that were read when they were not there. */
  readonly reads: readonly {readonly offset: number; readonly length: number}[]
  /** From now on (or not any more), what is missing stays missing. */
  fail(failing: boolean): void
  /** Everything arrives. */
  fill(): void
  close(): void
}

const BLOCK_SIZE = 4096

/** An empty sparse file below `directory`, to be filled from the layer; `name` as a digest's hexadecimal digits. */
export function createSampleDevice(layer: SampleLayer, directory: string, name: string): SampleDevice {
  const path = join(directory, `${name}.data`)
  const file = openSync(path, 'w+')
  ftruncateSync(file, layer.size)
  const bitmap = createChunkBitmap(layer.size / BLOCK_SIZE)
  const reads: {offset: number; length: number}[] = []
  let failing = false

  const arrive = (block: number) => {
    if (bitmap.has(block)) return
    writeSync(file, layer.data(block * BLOCK_SIZE, BLOCK_SIZE), 0, BLOCK_SIZE, block * BLOCK_SIZE)
    bitmap.add(block)
  }

  return {
    name,
    path,
    size: layer.size,
    present: bitmap.buffer,
    reads,
    read: async (offset, length) => {
      reads.push({offset, length})
      // A registry answers later.
      await new Promise(resolve => setImmediate(resolve))
      if (failing) throw new CodedError('unavailable', 'Cannot reach the registry')
      const last = Math.floor((offset + length - 1) / BLOCK_SIZE)
      for (let block = Math.floor(offset / BLOCK_SIZE); block <= last; block++) arrive(block)
      return layer.data(offset, length)
    },
    presentBlocks: () => bitmap.count(),
    fail: value => {
      failing = value
    },
    fill: () => {
      for (let block = 0; block < layer.size / BLOCK_SIZE; block++) arrive(block)
    },
    close: () => closeSync(file),
  }
}
