// Which platforms of an image a command is about.

import {formatPlatform, hostPlatform, parsePlatform} from '../oci/platform.ts'
import type {PlatformSelection} from './image-tree.ts'

/** The selection that `--platform` and `--all-platforms` make; without either, this machine's platform. */
export function platformsFrom(flags: {
  readonly platform?: readonly string[] | undefined
  readonly 'all-platforms'?: boolean
}): PlatformSelection {
  if (flags['all-platforms']) return 'all'
  const wanted = (flags.platform ?? []).filter(text => text !== '').map(parsePlatform)
  if (wanted.length === 0) return [hostPlatform()]
  return [...new Map(wanted.map(platform => [formatPlatform(platform), platform])).values()]
}
