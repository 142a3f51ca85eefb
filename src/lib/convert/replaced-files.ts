// Files of a layer's own that have the names of the format's: they make room for those, and whoever owns them is told.

import type {BulkCodec} from '../compression/codec.ts'
import {isDescribing, isLandmark, LANDMARK_CONTENTS} from '../estargz/landmark.ts'
import {payloadOffsetOf, type TarEntry} from '../tar/tar-entry.ts'
import {readSpool, type SpooledLayer} from './spool-layer.ts'

/** How a TOC begins, whoever wrote it (Go's encoder, or ours after it); more would read less than one chunk of it. */
const TOC_START = /^\s*\{\s*"version"\s*:\s*\d+\s*,\s*"entries"\s*:/
const TOC_START_SIZE = 64

/** The paths of such files; an earlier conversion's landmarks and TOC are none. */
export async function replacedFiles(layer: SpooledLayer, codec: BulkCodec): Promise<string[]> {
  const replaced: string[] = []
  for (const entry of layer.entries) {
    if (isDescribing(entry.path) && !(await isOfFormat(entry, layer, codec))) replaced.push(entry.path)
  }
  return [...new Set(replaced)]
}

async function isOfFormat(entry: TarEntry, {spool}: SpooledLayer, codec: BulkCodec): Promise<boolean> {
  if (entry.type !== 'reg') return false
  const start = await readSpool(spool, payloadOffsetOf(entry), Math.min(TOC_START_SIZE, entry.size), codec)
  if (isLandmark(entry.path)) return entry.size === 1 && start[0] === LANDMARK_CONTENTS
  return TOC_START.test(Buffer.from(start).toString('latin1'))
}
