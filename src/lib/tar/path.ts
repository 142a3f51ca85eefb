// Paths in layers: how the names of an archive become places in a tree.

import {CodedError} from '../errors/coded-error.ts'
import {encodeByteText} from '../io/byte-text.ts'
import type {TarLimits} from './tar-entry.ts'

/** OCI image-spec, layer.md "Whiteouts". */
const WHITEOUT_PREFIX = '.wh.'

/**
 * `name` as a path relative to the layer's root: no `.`, no empty components, `a/../b` resolved; empty for the root
 * itself. Undefined when `..` leads out of the root: unpackers disagree on what such a name means, so nobody may rely
 * on it, and it is the classic attack on them.
 */
export function cleanPath(name: string): string | undefined {
  if (isClean(name)) return name.endsWith('/') ? name.slice(0, -1) : name
  const components: string[] = []
  for (const component of name.split('/')) {
    if (component === '' || component === '.') continue
    if (component !== '..') components.push(component)
    else if (components.pop() === undefined) return undefined
  }
  return components.join('/')
}

/** The path of the directory that holds `path`; the root is in itself. */
export function parentPath(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf('/')))
}

/** The last component of a clean path. */
export function baseName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1)
}

/** Throws `unsupported` for a clean path that no Linux file system could hold. */
export function checkPathLimits(path: string, limits: TarLimits, where: string): void {
  const {nameSize, pathSize, depth} = limits
  // UTF-8 is at most 3 bytes per UTF-16 unit, so that most paths need no closer look.
  if (path.length * 3 <= nameSize) return
  if (encodeByteText(path).length > pathSize)
    throw tooLong(where, `its path is longer than ${pathSize} bytes`)
  const components = path.split('/')
  if (components.length > depth) throw tooLong(where, `its path is deeper than ${depth} directories`)
  const base = components.pop()!
  // Nobody makes a file of a whiteout's name, but of the one that it hides.
  components.push(base.startsWith(WHITEOUT_PREFIX) ? base.slice(WHITEOUT_PREFIX.length) : base)
  if (components.some(component => encodeByteText(component).length > nameSize)) {
    throw tooLong(where, `its path has a component of more than ${nameSize} bytes`)
  }
}

/** True for the common names, which need no rewriting but perhaps the removal of one slash at the end. */
function isClean(name: string): boolean {
  return name !== '' && !/(^|\/)(\.{0,2})(\/|$)/.test(name.endsWith('/') ? name.slice(0, -1) : name)
}

function tooLong(where: string, problem: string): CodedError {
  return new CodedError('unsupported', `Cannot use ${where}: ${problem}`)
}
