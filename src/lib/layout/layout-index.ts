// index.json of a layout directory: read with bounds, replaced in one step, never overwritten when it cannot be read.

import {mkdir, open} from 'node:fs/promises'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import {isRecord} from '../oci/descriptor.ts'
import {
  encodeJson,
  type ImageIndex,
  MAX_INDEX_ENTRIES,
  MAX_MANIFEST_SIZE,
  parseImageDocument,
} from '../oci/manifest.ts'
import {OCI_INDEX} from '../oci/media-type.ts'
import type {LayoutPaths} from './layout-paths.ts'
import {replaceFile} from './staged-file.ts'

const EMPTY_INDEX: ImageIndex = {schemaVersion: 2, mediaType: OCI_INDEX, manifests: []}
/** `oci-layout` is one small JSON object; anything longer is not it. */
const MAX_MARKER_SIZE = 4096

/**
 * The index of a layout; undefined when the directory is no layout (yet). Throws `corrupt` when it is one that cannot
 * be understood, `unsupported` for a future layout version.
 */
export async function readLayoutIndex(paths: LayoutPaths): Promise<ImageIndex | undefined> {
  const marker = await readBounded(paths.marker, MAX_MARKER_SIZE)
  const bytes = await readBounded(paths.index, MAX_MANIFEST_SIZE)
  if (marker === undefined)
    return bytes === undefined ? undefined : parseLayoutIndex(bytes, `"${paths.index}"`)
  checkMarker(paths, marker)
  // An index is written before the marker: its absence is damage, and taking it for empty would free every blob.
  if (bytes === undefined) throw new CodedError('corrupt', `Cannot read "${paths.index}": it is missing`)
  return parseLayoutIndex(bytes, `"${paths.index}"`)
}

/** Changes the index. The caller holds the lock; `change` returns the new entries. */
export async function changeLayoutIndex(
  paths: LayoutPaths,
  change: (entries: ImageIndex['manifests']) => ImageIndex['manifests'],
): Promise<void> {
  const index = (await readLayoutIndex(paths)) ?? EMPTY_INDEX
  const manifests = change(index.manifests)
  const bytes = encodeJson({...index, manifests})
  if (manifests.length > MAX_INDEX_ENTRIES || bytes.length > MAX_MANIFEST_SIZE) {
    throw new CodedError(
      'failed-precondition',
      `Cannot add an image to "${paths.root}": it would hold ${manifests.length}, and ${MAX_INDEX_ENTRIES} fit`,
    )
  }
  await replaceFile(paths, paths.index, bytes)
}

/** Makes the directory a layout if it is none. The caller holds the lock. */
export async function ensureLayout(paths: LayoutPaths): Promise<void> {
  const index = await readLayoutIndex(paths)
  await mkdir(paths.blobs, {recursive: true})
  if (index === undefined) await replaceFile(paths, paths.index, encodeJson(EMPTY_INDEX))
  if ((await readBounded(paths.marker, MAX_MARKER_SIZE)) === undefined) {
    await replaceFile(paths, paths.marker, encodeJson({imageLayoutVersion: '1.0.0'}))
  }
}

/** Parses an index.json; `where` names it. Throws `corrupt`. */
export function parseLayoutIndex(bytes: Uint8Array, where: string): ImageIndex {
  const document = parseImageDocument(bytes, OCI_INDEX, where)
  if (document.kind === 'index') return document.index
  throw new CodedError('corrupt', `Cannot use ${where}: it is no image index`)
}

function checkMarker(paths: LayoutPaths, bytes: Uint8Array): void {
  const version = markerVersion(bytes)
  if (version === undefined) {
    throw new CodedError('corrupt', `Cannot use "${paths.marker}": it has no "imageLayoutVersion"`)
  }
  if (!version.startsWith('1.')) {
    throw new CodedError(
      'unsupported',
      `Cannot use "${paths.root}": its layout version ${JSON.stringify(version)} is not 1.x`,
    )
  }
}

function markerVersion(bytes: Uint8Array): string | undefined {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(bytes))
    return isRecord(value) && typeof value.imageLayoutVersion === 'string'
      ? value.imageLayoutVersion
      : undefined
  } catch {
    return undefined
  }
}

/** A file's bytes, at most `limit`; undefined when there is none. */
async function readBounded(path: string, limit: number): Promise<Uint8Array | undefined> {
  try {
    await using file = await open(path, 'r')
    const {size} = await file.stat()
    if (size > limit) {
      throw new CodedError('corrupt', `Cannot read "${path}": ${size} bytes exceed the limit of ${limit}`)
    }
    return await file.readFile()
  } catch (error) {
    if (hasCode(error, 'not-found')) return undefined
    throw error
  }
}
