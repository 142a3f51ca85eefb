// Prefetch lists: paths and glob patterns that a person wrote, one per line, instead of a profile.

import {CodedError, messageOf} from '../errors/coded-error.ts'
import {cleanPath} from './clean-path.ts'
import {compileGlob, type Glob} from './glob.ts'

/** Largest list accepted, bytes. */
export const MAX_PREFETCH_LIST_SIZE = 16 * 1024 * 1024
/** Most patterns with wildcards in one list: each is tried on every file of the image. Plain paths are not limited. */
export const MAX_PREFETCH_GLOBS = 10_000

/** One line of a list: the pattern as a path relative to the image's root, compiled. `line` counts from 1. */
export interface PrefetchPattern {
  readonly pattern: string
  readonly line: number
  readonly glob: Glob
}

/** What a list names in each layer, in the order of the list; and the lines that name nothing anywhere. */
export interface PrefetchSelection {
  readonly layers: readonly (readonly string[])[]
  readonly unmatched: readonly PrefetchPattern[]
}

/**
 * Parses a list: blank lines and lines that start with `#` are skipped, a leading `/` is optional. `where` names the
 * file in the `invalid-argument` error, which says the line.
 */
export function parsePrefetchList(text: string, where: string): PrefetchPattern[] {
  if (text.length > MAX_PREFETCH_LIST_SIZE) {
    throw new CodedError(
      'invalid-argument',
      `Cannot use the prefetch list ${where}: ${text.length} characters exceed the limit of ${MAX_PREFETCH_LIST_SIZE}`,
    )
  }
  const patterns: PrefetchPattern[] = []
  let globs = 0
  for (const [index, raw] of text
    .replace(/^\uFEFF/, '')
    .split('\n')
    .entries()) {
    const content = raw.trim()
    if (content === '' || content.startsWith('#')) continue
    const line = index + 1
    const pattern = cleanPath(content)
    if (pattern === undefined) throw malformed(where, line, `${JSON.stringify(content)} names no file`)
    const glob = compileAt(pattern, where, line)
    if (glob.literal === undefined && ++globs > MAX_PREFETCH_GLOBS) {
      throw malformed(where, line, `there are more than ${MAX_PREFETCH_GLOBS} patterns`)
    }
    patterns.push({pattern, line, glob})
  }
  return patterns
}

/**
 * The files that `patterns` name in each layer. `layers` are the clean names of each layer's files in tar order; the
 * result is in the order of the list, then of the layer, each file once.
 */
export function selectPrefetchFiles(
  patterns: readonly PrefetchPattern[],
  layers: readonly (readonly string[])[],
): PrefetchSelection {
  const matched = new Set<PrefetchPattern>()
  const selected = layers.map(names => {
    const present = new Set(names)
    const chosen = new Set<string>()
    for (const pattern of patterns) {
      for (const name of namesOf(pattern.glob, names, present)) {
        chosen.add(name)
        matched.add(pattern)
      }
    }
    return [...chosen]
  })
  return {layers: selected, unmatched: patterns.filter(pattern => !matched.has(pattern))}
}

function namesOf(glob: Glob, names: readonly string[], present: ReadonlySet<string>): readonly string[] {
  if (glob.literal !== undefined) return present.has(glob.literal) ? [glob.literal] : []
  return names.filter(name => glob.matches(name))
}

function compileAt(pattern: string, where: string, line: number): Glob {
  try {
    return compileGlob(pattern)
  } catch (cause) {
    throw malformed(where, line, messageOf(cause))
  }
}

function malformed(where: string, line: number, problem: string): CodedError {
  return new CodedError(
    'invalid-argument',
    `Cannot parse line ${line} of the prefetch list ${where}: ${problem}`,
  )
}
