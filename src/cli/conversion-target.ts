// Where a conversion writes: the image, and beside it the image of TOCs that are kept outside (external TOC).

import type {ConvertImageOptions} from '../lib/convert/convert-image.ts'
import {copyImage} from '../lib/convert/copy-image.ts'
import {
  openTocImage,
  TOC_TAG_SUFFIX,
  type TocImage,
  tocImageName,
  writeTocImage,
} from '../lib/convert/toc-image.ts'
import {CodedError, hasCode} from '../lib/errors/coded-error.ts'
import type {ProgressSink} from '../lib/io/progress.ts'
import type {ImageTarget} from '../lib/oci/image-store.ts'
import {parseReference} from '../lib/oci/reference.ts'
import {type ImageLocation, parseImageLocation} from '../lib/transport/image-location.ts'
import type {LayerFormat} from './conversion.ts'
import type {Session} from './session.ts'

export interface ConversionTarget extends AsyncDisposable {
  readonly image: ImageTarget
  /** Names of what is published beside the image. */
  readonly extraImages: readonly string[]
  readonly beforePublish: ConvertImageOptions['beforePublish']
}

/** Opens the places that converting into `format` writes to; throws `invalid-argument` where there is none for TOCs. */
export async function openConversionTarget(
  session: Pick<Session, 'target' | 'signal'>,
  location: string,
  format: LayerFormat,
): Promise<ConversionTarget> {
  const isOutside = format.kind === 'estargz' && format.externalToc
  const tocLocation = isOutside ? tocImageLocation(location) : undefined
  await using opened = new AsyncDisposableStack()
  const image = opened.use(await session.target(location))
  const tocs = tocLocation && opened.use(await session.target(tocLocation))
  const resources = opened.move()
  return {
    image,
    extraImages: tocs ? [tocs.name] : [],
    beforePublish:
      tocs &&
      (async manifests => {
        await writeTocImage(tocs, manifests, {signal: session.signal})
      }),
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  }
}

/** The TOCs beside an image, for reading it; none where the place of the image has room for no second one. */
export async function openTocsBeside(
  session: Pick<Session, 'source'>,
  location: string,
): Promise<AsyncDisposable & {readonly tocs: TocImage | undefined}> {
  let tocLocation: ImageLocation
  try {
    tocLocation = tocImageLocation(location)
  } catch (error) {
    if (!hasCode(error, 'invalid-argument')) throw error
    return {tocs: undefined, [Symbol.asyncDispose]: async () => {}}
  }
  const source = await session.source(tocLocation)
  return {tocs: openTocImage(source), [Symbol.asyncDispose]: () => source[Symbol.asyncDispose]()}
}

/**
 * Copies the TOCs beside an image of the store to beside its name on a registry. Throws `not-found` when there are none.
 * Resolves to the name that they have there.
 */
export async function copyTocsBeside(
  session: Pick<Session, 'source' | 'target' | 'signal'>,
  local: string,
  remote: string,
  onProgress: ProgressSink,
): Promise<string> {
  const reference = tocImageName(parseReference(remote))
  await using source = await session.source(tocImageLocation(local))
  await using target = await session.target({transport: 'docker', reference})
  await copyImage(source, target, {
    platforms: 'all',
    index: 'reduced',
    onProgress,
    signal: session.signal,
  })
  return reference
}

/** Where the TOCs of an image are: the same place, with `-esgztoc` after the tag. Throws `invalid-argument`. */
export function tocImageLocation(text: string): ImageLocation {
  const location = parseImageLocation(text)
  switch (location.transport) {
    case 'store':
    case 'containerd':
      return {...location, name: tocImageName(parseReference(location.name))}
    case 'docker':
      return {...location, reference: tocImageName(parseReference(location.reference))}
    case 'oci':
      if (location.tag !== undefined) return {...location, tag: `${location.tag}${TOC_TAG_SUFFIX}`}
      throw invalid(text, 'the image needs a tag, as in oci:DIRECTORY:TAG')
    case 'oci-archive':
    case 'docker-archive':
      throw invalid(text, 'an archive written here holds one image')
  }
}

function invalid(text: string, problem: string): CodedError {
  return new CodedError(
    'invalid-argument',
    `Cannot keep TOCs in an image beside ${JSON.stringify(text)}: ${problem}`,
  )
}
