// What layers became in earlier conversions: small JSON files, one per conversion, under a directory of the user's.
// Only facts are kept, never content: whether the converted layer is still where it should go is for the caller to ask.

import {mkdir, readdir, readFile, rm, stat, utimes} from 'node:fs/promises'
import {join} from 'node:path'
import type {ConversionCache, ConversionFacts} from '../convert/conversion-cache.ts'
import {hasCode} from '../errors/coded-error.ts'
import {replaceFile} from '../io/staged-file.ts'
import {isRecord, parseDescriptor} from '../oci/descriptor.ts'
import {isDigest} from '../oci/digest.ts'

/** Entries kept; the least recently used go first. An entry is under 1 KiB, and a big image has a hundred layers. */
const MAX_ENTRIES = 4096
/** A larger file is not one of ours. */
const MAX_ENTRY_SIZE = 1 << 20

/** The cache in `directory`, which is made when there is something to remember. */
export function openConversionCache(directory: string): ConversionCache {
  return {
    find: async key => {
      const path = entryPath(directory, key)
      const facts = await readFacts(path)
      if (facts) await utimes(path, new Date(), new Date()).catch(() => {})
      return facts
    },
    remember: async (key, facts) => {
      await mkdir(directory, {recursive: true})
      await replaceFile(entryPath(directory, key), JSON.stringify(facts), {mayBeLost: true})
      await prune(directory)
    },
  }
}

function entryPath(directory: string, key: string): string {
  return join(directory, `${key}.json`)
}

/** Undefined for a missing or damaged entry: then the layer is converted again, and the entry replaced. */
async function readFacts(path: string): Promise<ConversionFacts | undefined> {
  let value: unknown
  try {
    if ((await stat(path)).size > MAX_ENTRY_SIZE) return undefined
    value = JSON.parse(await readFile(path, 'utf8'))
  } catch (error) {
    if (hasCode(error, 'not-found') || error instanceof SyntaxError) return undefined
    throw error
  }
  if (!isRecord(value) || !isDigest(value.diffId)) return undefined
  const prioritized = parsePrioritized(value.prioritized)
  const detachedToc = parseDetachedToc(value.detachedToc)
  if (prioritized === 'damaged' || detachedToc === 'damaged') return undefined
  try {
    const descriptor = parseDescriptor(value.descriptor, path)
    return {
      descriptor,
      diffId: value.diffId,
      ...(prioritized ? {prioritized} : {}),
      ...(detachedToc ? {detachedToc} : {}),
    }
  } catch {
    return undefined
  }
}

function parsePrioritized(value: unknown): ConversionFacts['prioritized'] | 'damaged' {
  if (value === undefined) return undefined
  if (!isRecord(value)) return 'damaged'
  const {files, bytes, missing, unmoved, misread, replaced} = value
  const lists = [missing, unmoved, misread, replaced]
  if (typeof files !== 'number' || typeof bytes !== 'number' || !lists.every(Array.isArray)) return 'damaged'
  const texts = lists.map(list => (list as unknown[]).map(String))
  return {
    files,
    bytes,
    missing: texts[0]!,
    unmoved: texts[1]!,
    misread: texts[2]!,
    replaced: texts[3]!,
  }
}

function parseDetachedToc(value: unknown): ConversionFacts['detachedToc'] | 'damaged' {
  if (value === undefined) return undefined
  if (!isRecord(value) || !isDigest(value.digest) || typeof value.size !== 'number') return 'damaged'
  return {digest: value.digest, size: value.size}
}

async function prune(directory: string): Promise<void> {
  const names = await readdir(directory)
  if (names.length <= MAX_ENTRIES) return
  const ages = await Promise.all(
    names.map(async name => {
      const path = join(directory, name)
      return {path, usedMs: (await stat(path).catch(() => undefined))?.mtimeMs ?? 0}
    }),
  )
  ages.sort((a, b) => a.usedMs - b.usedMs)
  for (const {path} of ages.slice(0, names.length - MAX_ENTRIES / 2)) await rm(path, {force: true})
}
