// Puts layer conversions together: the format that flags ask for, with this machine's codec.

import {readFile} from 'node:fs/promises'
import {availableParallelism} from 'node:os'
import type {LayerConversion} from '../lib/convert/convert-image.ts'
import {CodedError} from '../lib/errors/coded-error.ts'
import {parseRecord, recordPaths} from '../lib/record/record-file.ts'
import type {LayerFormat} from './conversion.ts'

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
export function createLayerConversion(
  format: LayerFormat,
  _options: {readonly prioritizedPaths: readonly string[]},
): LayerConversion {
  throw new CodedError('unsupported', `Cannot write ${format.kind} layers yet`)
}
