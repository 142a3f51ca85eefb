// Which platforms to take out of a store that may hold some of an image's platforms only.

import type {PlatformSelection} from '../lib/convert/image-tree.ts'
import type {CallOptions} from '../lib/oci/content-store.ts'
import type {ImageSource} from '../lib/oci/image-store.ts'
import {parsePlatform} from '../lib/oci/platform.ts'
import {platformsOf, summarizeImage} from './image-summary.ts'
import {platformsFrom} from './platforms.ts'

/**
 * The platforms that flags ask for; without flags, all when everything of the image is there, else those that are: a
 * pull for one platform leaves the others of the index out.
 */
export async function presentPlatforms(
  source: ImageSource,
  flags: {readonly platform?: readonly string[] | undefined; readonly 'all-platforms'?: boolean},
  options: CallOptions,
): Promise<PlatformSelection> {
  if (flags['all-platforms'] || (flags.platform ?? []).length > 0) return platformsFrom(flags)
  const summaries = await summarizeImage(source.content, await source.resolve(options), options)
  if (summaries.every(({manifest}) => manifest !== undefined)) return 'all'
  const present = platformsOf(summaries)
  return present.length === 0 ? 'all' : present.map(parsePlatform)
}
