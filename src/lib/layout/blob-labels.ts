// Labels of blobs, one small JSON file a blob. They are hints for speed: losing them loses no content.

import {open} from 'node:fs/promises'
import {hasCode} from '../errors/coded-error.ts'
import {isStringRecord} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import {type LayoutPaths, labelsPath} from './layout-paths.ts'
import {replaceFile} from './staged-file.ts'

export type Labels = Readonly<Record<string, string>>

/** Larger files were not written by us. */
const MAX_LABELS_SIZE = 1024 * 1024

/** The labels of a blob; none when there are none, or they cannot be understood. */
export async function readLabels(paths: LayoutPaths, digest: Digest): Promise<Labels> {
  try {
    await using file = await open(labelsPath(paths, digest), 'r')
    if ((await file.stat()).size > MAX_LABELS_SIZE) return {}
    const value: unknown = JSON.parse(await file.readFile('utf8'))
    return isStringRecord(value) ? value : {}
  } catch (error) {
    if (error instanceof SyntaxError || hasCode(error, 'not-found')) return {}
    throw error
  }
}

/** Adds labels to those of a blob; an empty value removes one. The caller holds the lock. */
export async function mergeLabels(paths: LayoutPaths, digest: Digest, added: Labels): Promise<void> {
  const before = await readLabels(paths, digest)
  const merged = Object.fromEntries(Object.entries({...before, ...added}).filter(([, value]) => value !== ''))
  const unchanged = JSON.stringify(merged) === JSON.stringify(before)
  if (!unchanged) await replaceFile(paths, labelsPath(paths, digest), JSON.stringify(merged))
}
