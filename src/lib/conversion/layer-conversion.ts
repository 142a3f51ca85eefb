// Puts layer conversions together: the format that is asked for, with this machine's codec and memory of conversions.

import {readFile} from 'node:fs/promises'
import {availableParallelism} from 'node:os'
import {openConversionCache} from '../conversion-cache/conversion-cache.ts'
import type {ConversionCache} from '../convert/conversion-cache.ts'
import type {LayerConversion} from '../convert/convert-image.ts'
import type {LayerFormat} from '../convert/layer-format.ts'
import {type LayerConversionOptions, lazyConversion} from '../convert/lazy-conversion.ts'
import {plainConversion} from '../convert/plain-conversion.ts'
import {CodedError} from '../errors/coded-error.ts'
import {createBulkCodec} from '../native/bulk-codec.ts'
import {parseRecord, recordPaths} from '../record/record-file.ts'
import {MEMORY_CARE} from './memory-care.ts'

export type NewLayerConversion = Omit<LayerConversionOptions, 'codec' | 'cache' | 'memoryCare'> & {
  /** Where conversions are remembered; nowhere when undefined. */
  readonly memoryDirectory: string | undefined
  readonly say: (message: string) => void
}

/** Layers converted at once: compression takes all cores for one layer, more only hide waiting for bytes. */
export function parallelLayers(): number {
  return Math.max(2, Math.min(4, availableParallelism()))
}

/** The paths of a record file, in its order; none without a file. */
export async function readRecordPaths(file: string | undefined): Promise<readonly string[]> {
  if (!file) return []
  const bytes = await readFile(file).catch(cause => {
    throw new CodedError('not-found', `Cannot read the record file "${file}"`, {cause})
  })
  return recordPaths(parseRecord(bytes, `"${file}"`))
}

/** The conversion of one layer into `format`. */
export function createLayerConversion(format: LayerFormat, options: NewLayerConversion): LayerConversion {
  const {memoryDirectory, say, ...choices} = options
  const codec = createBulkCodec()
  if (codec.name === 'node') {
    say('note: the native part is not built, conversion is slower without it (bin/setup builds it)')
  }
  const cache = memoryDirectory === undefined ? undefined : openMemory(memoryDirectory)
  return format.kind === 'plain'
    ? plainConversion(format, {...choices, codec, cache})
    : lazyConversion(format, {...choices, codec, cache, memoryCare: MEMORY_CARE})
}

/** Earlier conversions only save time: a home that cannot be written must not fail one. */
function openMemory(directory: string): ConversionCache {
  const cache = openConversionCache(directory)
  return {
    find: key => cache.find(key).catch(() => undefined),
    remember: (key, facts) => cache.remember(key, facts).catch(() => {}),
  }
}
