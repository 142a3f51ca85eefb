// Checks the contents of a layer's files, chunk by chunk, while its streams come by.

import {createDigester, type Digester, digestOf} from '../blob/sha256.ts'
import type {Finding} from '../estargz/finding.ts'
import type {Chunk, LayerFile} from '../estargz/index-toc.ts'
import type {OpenLayer} from '../estargz/open-layer.ts'
import {isDigest} from '../oci/digest.ts'

/** A chunk and whose it is. */
export interface FileChunk {
  readonly file: LayerFile
  readonly chunk: Chunk
}

/** All chunks of a layer, those of landmarks and of replaced files included. */
export function chunksOf(layer: OpenLayer): FileChunk[] {
  return layer.allFiles.flatMap(file => file.chunks.map(chunk => ({file, chunk})))
}

export interface ChunkChecker {
  /** `stream` is what the members at `offset` of the blob decompress to. */
  check(offset: number, stream: Uint8Array): void
  /** After all streams: reports files whose contents did not come by as a whole. */
  finish(): void
}

/** Checks chunks as the streams that hold them come by, and files as their last chunk does. */
export function createChunkChecker(layer: OpenLayer | undefined, findings: Finding[]): ChunkChecker {
  const byOffset = new Map<number, FileChunk[]>()
  for (const item of layer ? chunksOf(layer) : []) {
    const {offset} = item.chunk
    const there = byOffset.get(offset)
    if (there) there.push(item)
    else byOffset.set(offset, [item])
  }
  const fileDigesters = new Map<LayerFile, {readonly digester: Digester; nextOffset: number}>()

  function check(offset: number, stream: Uint8Array): void {
    for (const {file, chunk} of byOffset.get(offset) ?? []) {
      const bytes = stream.subarray(chunk.innerOffset, chunk.innerOffset + chunk.size)
      const problem = problemOf(chunk, bytes)
      if (problem) {
        const message = `The chunk of ${JSON.stringify(file.path)} at ${chunk.chunkOffset} ${problem}`
        findings.push({kind: 'chunk', path: file.path, message})
      }
      addToFile(file, chunk, bytes)
    }
  }

  /** A file's digest is of its chunks one after the other; in every valid layer they come by in that order. */
  function addToFile(file: LayerFile, chunk: Chunk, bytes: Uint8Array): void {
    if (!isDigest(file.entry.digest) || (file.chunks.length === 1 && chunk.digest === file.entry.digest))
      return
    const state = fileDigesters.get(file) ?? {digester: createDigester(), nextOffset: 0}
    fileDigesters.set(file, state)
    if (state.nextOffset !== chunk.chunkOffset) return
    state.digester.update(bytes)
    state.nextOffset += bytes.length
    if (state.nextOffset !== file.entry.size) return
    const digest = state.digester.digest()
    fileDigesters.delete(file)
    if (digest !== file.entry.digest) report(file)
  }

  function report(file: LayerFile): void {
    const message = `${JSON.stringify(file.path)} does not have the digest that the TOC gives`
    findings.push({kind: 'file-digest', path: file.path, message})
  }

  function finish(): void {
    for (const file of fileDigesters.keys()) report(file)
  }

  return {check, finish}
}

function problemOf(chunk: Chunk, bytes: Uint8Array): string | undefined {
  if (bytes.length !== chunk.size) return 'is cut short'
  if (chunk.digest === undefined) return 'has no digest, so that nothing can be verified'
  return digestOf(bytes) === chunk.digest ? undefined : 'does not have its digest'
}
