// Puts layer conversions together: the format that flags ask for, with this machine's codec and memory of conversions.

import {readFile} from 'node:fs/promises'
import {availableParallelism, tmpdir} from 'node:os'
import {openConversionCache} from '../lib/cache/conversion-cache.ts'
import type {ConversionCache} from '../lib/convert/conversion-cache.ts'
import type {LayerConversion} from '../lib/convert/convert-image.ts'
import {estargzConversion} from '../lib/convert/estargz-conversion.ts'
import type {LazyConversionOptions} from '../lib/convert/lazy-conversion.ts'
import {plainConversion} from '../lib/convert/plain-conversion.ts'
import {zstdChunkedConversion} from '../lib/convert/zstdchunked-conversion.ts'
import {CodedError} from '../lib/errors/coded-error.ts'
import {createBulkCodec} from '../lib/native/bulk-codec.ts'
import {parseRecord, recordPaths} from '../lib/record/record-file.ts'
import type {LayerFormat} from './conversion.ts'

export type LayerConversionOptions = Pick<
  LazyConversionOptions,
  'prioritizedIn' | 'isReusable' | 'onReuse'
> & {
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
export function createLayerConversion(format: LayerFormat, options: LayerConversionOptions): LayerConversion {
  const {memoryDirectory, say, ...choices} = options
  const codec = createBulkCodec()
  if (codec.name === 'node') {
    say('note: the native part is not built, conversion is slower without it (bin/setup builds it)')
  }
  const cache = memoryDirectory === undefined ? undefined : openMemory(memoryDirectory)
  if (format.kind === 'plain') return plainConversion({codec, cache, ...format})
  const lazy = {...choices, codec, cache, temporaryDirectory: tmpdir()}
  if (format.kind === 'zstdchunked') return zstdChunkedConversion({...lazy, ...format})
  const {externalToc, keepDiffId} = format
  const toc = keepDiffId ? 'outside-lossless' : externalToc ? 'outside' : 'inside'
  return estargzConversion({...lazy, ...format, toc})
}

/** Earlier conversions only save time: a home that cannot be written must not fail one. */
function openMemory(directory: string): ConversionCache {
  const cache = openConversionCache(directory)
  return {
    find: key => cache.find(key).catch(() => undefined),
    remember: (key, facts) => cache.remember(key, facts).catch(() => {}),
  }
}
