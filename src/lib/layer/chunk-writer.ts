// Writes chunks to a layer's data file, as few writes as they allow.

import type {ChunkMap} from './chunk-map.ts'
import type {LayerData} from './ports.ts'
import {DEVICE_BLOCK_SIZE} from './toc-tree.ts'

/** Chunks of one write; with padding between them they stay below IOV_MAX, which is 1024. */
const MAX_RUN = 500
const PADDING = new Uint8Array(DEVICE_BLOCK_SIZE)

/** Writes the chunks in `found` that are not there yet. Resolves to their indexes. */
export async function writeChunks(
  map: ChunkMap,
  data: LayerData,
  found: ReadonlyMap<number, Uint8Array>,
): Promise<readonly number[]> {
  const missing = [...found.keys()].filter(chunk => !data.chunks.has(chunk)).sort((a, b) => a - b)
  for (const run of runsOf(missing)) {
    await data.write(map.deviceOffsets[run[0]!]!, piecesOf(map, run, found))
  }
  return missing
}

/** Neighbours on the device: between them there is only the padding behind files. */
function runsOf(chunks: readonly number[]): number[][] {
  const runs: number[][] = []
  for (const chunk of chunks) {
    const run = runs.at(-1)
    if (run && run.at(-1) === chunk - 1 && run.length < MAX_RUN) run.push(chunk)
    else runs.push([chunk])
  }
  return runs
}

function piecesOf(
  map: ChunkMap,
  run: readonly number[],
  found: ReadonlyMap<number, Uint8Array>,
): Uint8Array[] {
  const pieces: Uint8Array[] = []
  let at = map.deviceOffsets[run[0]!]!
  for (const chunk of run) {
    const padding = map.deviceOffsets[chunk]! - at
    if (padding > 0) pieces.push(PADDING.subarray(0, padding))
    pieces.push(found.get(chunk)!)
    at = map.deviceOffsets[chunk]! + map.sizes[chunk]!
  }
  return pieces
}
