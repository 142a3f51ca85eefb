// Files of this package, found from any depth: sources, the compiled library and the bundle are at different ones.

import {existsSync} from 'node:fs'
import {dirname, join} from 'node:path'

/** The path of `name` in `directory`, or in the nearest directory above it that has it; undefined when none has. */
export function findAbove(directory: string, name: string): string | undefined {
  for (let current = directory; ; current = dirname(current)) {
    const path = join(current, name)
    if (existsSync(path)) return path
    if (dirname(current) === current) return undefined
  }
}
