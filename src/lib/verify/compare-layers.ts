// Compares what a layer unpacks to with what its source does: contents, attributes, and the tree that names lead to.

import {mkdtemp, rm} from 'node:fs/promises'
import {join} from 'node:path'
import {openFile} from '../blob/file-blob.ts'
import {describeError, hasCode} from '../errors/coded-error.ts'
import type {Finding} from '../estargz/finding.ts'
import type {BlobSource, CallOptions} from '../oci/content-store.ts'
import {isForeignLayer} from '../oci/media-type.ts'
import {type LayerTarSource, writeLayerTar} from '../rootfs/layer-tar.ts'
import {payloadOffsetOf} from '../tar/tar-entry.ts'
import type {DirectoryNode, FileNode} from '../vfs/file-tree.ts'
import {placeLayer} from '../vfs/layer-places.ts'
import {treeOfLayer} from '../vfs/layer-tree.ts'
import {compareTrees} from './compare-trees.ts'

export interface CompareOptions extends CallOptions {
  /** Where both layers are unpacked to tars, one pair at a time. */
  readonly temporaryDirectory: string
}

/** More differences of one layer are counted, and not named. */
const MAX_DIFFERENCES = 1000
/** Bytes of both files read at once. */
const READ_SIZE = 1 << 20

/** All differences as findings; what keeps the two from being compared is one, too. */
export async function compareLayers(
  source: LayerTarSource,
  converted: LayerTarSource,
  options: CompareOptions,
): Promise<Finding[]> {
  if (source.layer.digest === converted.layer.digest) return []
  if (isForeignLayer(source.layer.mediaType) || isForeignLayer(converted.layer.mediaType)) {
    return [{kind: 'source', message: `The layer is ${source.layer.digest} in the source`}]
  }
  const directory = await mkdtemp(join(options.temporaryDirectory, 'ctr-remote-compare-'))
  try {
    await using from = await unpack(source, join(directory, 'source.tar'), options)
    await using to = await unpack(converted, join(directory, 'converted.tar'), options)
    return await namedDifferences(from, to, options)
  } catch (error) {
    if (!hasCode(error, 'corrupt', 'not-found', 'unsupported')) throw error
    return [{kind: 'source', message: `Cannot compare the layer with its source: ${describeError(error)}`}]
  } finally {
    await rm(directory, {recursive: true, force: true})
  }
}

interface Unpacked extends AsyncDisposable {
  readonly tree: DirectoryNode
  readonly tar: BlobSource
}

async function unpack(source: LayerTarSource, path: string, options: CallOptions): Promise<Unpacked> {
  const {entries} = await writeLayerTar(source, path, options)
  const tree = treeOfLayer(placeLayer(entries).entries, payloadOffsetOf)
  const tar = await openFile(path)
  return {tree, tar, [Symbol.asyncDispose]: () => tar[Symbol.asyncDispose]()}
}

async function namedDifferences(from: Unpacked, to: Unpacked, {signal}: CallOptions): Promise<Finding[]> {
  const findings: Finding[] = []
  let unnamed = 0
  const same = (one: FileNode, other: FileNode) => haveSameContents({from, one}, {to, other}, {signal})
  for await (const {path, problem} of compareTrees(from.tree, to.tree, same)) {
    if (findings.length === MAX_DIFFERENCES) unnamed++
    else findings.push({kind: 'source', path, message: `${JSON.stringify(path)} ${problem}`})
  }
  if (unnamed > 0) findings.push({kind: 'source', message: `${unnamed} more files differ from the source`})
  return findings
}

async function haveSameContents(
  {from, one}: {readonly from: Unpacked; readonly one: FileNode},
  {to, other}: {readonly to: Unpacked; readonly other: FileNode},
  options: CallOptions,
): Promise<boolean> {
  for (let at = 0; at < one.size; at += READ_SIZE) {
    const size = Math.min(READ_SIZE, one.size - at)
    const [left, right] = await Promise.all([
      from.tar.read(one.dataOffset + at, size, options),
      to.tar.read(other.dataOffset + at, size, options),
    ])
    if (Buffer.compare(left, right) !== 0) return false
  }
  return true
}
