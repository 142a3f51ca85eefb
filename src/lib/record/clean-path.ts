// The one spelling of a path inside an image: no leading slash, no `.`, no empty parts, no way out.

/**
 * `path` relative to the root of an image: `/usr//bin/./app/` becomes `usr/bin/app`. `..` is resolved as if the root
 * were `/`. Undefined for the root itself and for a path with a NUL, which name no file.
 */
export function cleanPath(path: string): string | undefined {
  if (path.includes('\0')) return undefined
  const parts: string[] = []
  for (const part of path.split('/')) {
    if (part === '..') parts.pop()
    else if (part !== '' && part !== '.') parts.push(part)
  }
  return parts.length > 0 ? parts.join('/') : undefined
}
