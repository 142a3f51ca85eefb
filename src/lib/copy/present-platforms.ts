// What of an image is in a store, which may hold some of its platforms only, and where that came from.

import {platformsOf, summarizeImage} from '../image/image-summary.ts'
import type {PlatformSelection} from '../image/image-tree.ts'
import {platformsFrom} from '../image/platform-selection.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {ImageSource} from '../oci/image-store.ts'
import {parsePlatform} from '../oci/platform.ts'
import {knownSources} from './distribution-source.ts'

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

/** References to the repositories of `reference`'s registry that may have the layers of an image already. */
export async function sourcesOf(
  source: ImageSource,
  reference: string,
  options: CallOptions,
): Promise<string[]> {
  const summaries = await summarizeImage(source.content, await source.resolve(options), options)
  const layers = summaries.flatMap(({manifest}) => manifest?.layers ?? [])
  return knownSources(source.content, layers, reference, options)
}
