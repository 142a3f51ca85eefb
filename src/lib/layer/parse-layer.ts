// From a layer's end to all that mounting and reading it takes, in JavaScript: what `native-parser.ts` does in compiled code
// must come to the same.

import type {MemberKind} from '../compression/codec.ts'
import type {Decompressor} from '../compression/layer-format.ts'
import {encodeErofs} from '../erofs/encode-image.ts'
import {CodedError} from '../errors/coded-error.ts'
import type {LayerFile} from '../estargz/index-toc.ts'
import {isDescribing} from '../estargz/landmark.ts'
import {type OpenLayer, openLayer} from '../estargz/open-layer.ts'
import type {BlobSource, CallOptions} from '../oci/content-store.ts'
import type {Digest} from '../oci/digest.ts'
import type {DirectoryNode} from '../vfs/file-tree.ts'
import {type ChunkMap, mapChunks} from './chunk-map.ts'
import {withTail} from './tail-blob.ts'
import {DEVICE_BLOCK_SIZE, layOutDevice, treeOfToc} from './toc-tree.ts'

/** A layer to parse. */
export interface ParseTask {
  /** For messages. */
  readonly where: string
  readonly blobSize: number
  /** The end of the blob, from the TOC on. */
  readonly tail: Uint8Array
  /** The TOC of a layer that keeps it in another image. */
  readonly externalToc: Uint8Array | undefined
  /** What the TOC's digest must be, and that of every chunk must be there; undefined: nothing is verified. */
  readonly tocDigest: Digest | undefined
  /** Whether to make the EROFS image. */
  readonly wantsImage: boolean
}

/** What is known of a layer then. */
export interface ParsedLayer {
  /** For people: `eStargz`, … */
  readonly format: string
  readonly memberKind: MemberKind
  readonly map: ChunkMap
  /** Bytes of the blob to prefetch; undefined when the layer does not say. */
  readonly prefetchSize: number | undefined
  /** The EROFS image of its metadata, over a device as `map` describes it. */
  readonly image: Uint8Array | undefined
}

/** Parses a layer; throws as `openLayer` and `mapChunks` do, and what `signal` says when it is given up. */
export type LayerParser = (task: ParseTask, options: CallOptions) => Promise<ParsedLayer>

/** The parser, in the thread of the caller, where nothing can interrupt it. */
export function createLayerParser(decompressors: readonly Decompressor[]): LayerParser {
  return async (task, options) => {
    const open = await openTail(task, decompressors, options)
    const files = filesOfTree(open)
    const layout = layOutDevice(files)
    const map = mapChunks(layout, task.where, task.tocDigest !== undefined)
    const imageOptions = {blockSize: DEVICE_BLOCK_SIZE, dataSize: layout.size} as const
    return {
      format: open.decompressor.name,
      memberKind: open.decompressor.memberKind,
      map,
      prefetchSize: open.landmark && open.prefetchSize,
      image: task.wantsImage ? encodeErofs(treeOfToc(files, layout), imageOptions) : undefined,
    }
  }
}

/**
 * Most files of a layer whose tree the caller makes: about 1.5 KB of its memory each, and 20 microseconds in which it does
 * nothing else.
 */
const MAX_TREE_FILES = 400_000

/** The layer's tree, for who serves it file by file, made in the caller's thread; `unsupported` for too large a one. */
export async function parseTree(
  task: ParseTask,
  decompressors: readonly Decompressor[],
  options: CallOptions,
): Promise<DirectoryNode> {
  const files = filesOfTree(await openTail(task, decompressors, options))
  if (files.length > MAX_TREE_FILES) {
    throw new CodedError(
      'unsupported',
      `Cannot serve ${task.where} file by file: it has ${files.length} files, more than ${MAX_TREE_FILES}`,
    )
  }
  return treeOfToc(files, layOutDevice(files))
}

/** In the order of the layer, which decides what names mean; what is replaced may live on under another name. */
function filesOfTree({allFiles}: OpenLayer): LayerFile[] {
  return allFiles.filter(({path}) => !isDescribing(path))
}

function openTail(
  task: ParseTask,
  decompressors: readonly Decompressor[],
  {signal}: CallOptions,
): Promise<OpenLayer> {
  signal?.throwIfAborted()
  const {where, externalToc, tocDigest} = task
  return openLayer(blobOfTask(task), {where, tocDigest, decompressors, externalToc, signal})
}

/** The blob, of which only the end can be read. */
export function blobOfTask({where, tail, blobSize}: ParseTask): BlobSource {
  return withTail(nothingOf(blobSize, where), tail)
}

/** What lies before the end is not needed here. */
function nothingOf(size: number, where: string): BlobSource {
  return {
    size,
    read: async offset => {
      throw new CodedError('corrupt', `Cannot open ${where}: it leads to byte ${offset}, before its TOC`)
    },
  }
}
