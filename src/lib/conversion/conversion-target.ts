// Where a conversion writes: the image, and beside it the image of TOCs that are kept outside (external TOC).

import type {ConvertImageOptions} from '../convert/convert-image.ts'
import type {LayerFormat} from '../convert/layer-format.ts'
import {copyImage} from '../copy/copy-image.ts'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import {
  openTocImage,
  TOC_TAG_SUFFIX,
  type TocImage,
  tocImageName,
  writeTocImage,
} from '../external-toc/toc-image.ts'
import type {ProgressSink} from '../io/progress.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {ImageSource, ImageTarget} from '../oci/image-store.ts'
import {parseReference} from '../oci/reference.ts'
import {type ImageLocation, parseImageLocation} from '../transport/image-location.ts'

/** Opens places by name; whoever asks disposes what is opened. */
export interface Places extends CallOptions {
  source(location: string | ImageLocation): Promise<ImageSource>
  target(location: string | ImageLocation): Promise<ImageTarget>
}

export interface ConversionTarget extends AsyncDisposable {
  readonly image: ImageTarget
  /** Names of what is published beside the image. */
  readonly extraImages: readonly string[]
  readonly beforePublish: ConvertImageOptions['beforePublish']
}

/** Opens the places that converting into `format` writes to; throws `invalid-argument` where there is none for TOCs. */
export async function openConversionTarget(
  places: Pick<Places, 'target' | 'signal'>,
  location: string,
  format: LayerFormat,
): Promise<ConversionTarget> {
  const isOutside = format.kind === 'estargz' && format.toc !== 'inside'
  const tocLocation = isOutside ? tocImageLocation(location) : undefined
  await using opened = new AsyncDisposableStack()
  const image = opened.use(await places.target(location))
  const tocs = tocLocation && opened.use(await places.target(tocLocation))
  const resources = opened.move()
  return {
    image,
    extraImages: tocs ? [tocs.name] : [],
    beforePublish:
      tocs &&
      (async manifests => {
        await writeTocImage(tocs, manifests, {signal: places.signal})
      }),
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  }
}

/** The TOCs beside an image, for reading it; none where the place of the image has room for no second one. */
export async function openTocsBeside(
  places: Pick<Places, 'source'>,
  location: string,
): Promise<AsyncDisposable & {readonly tocs: TocImage | undefined}> {
  let tocLocation: ImageLocation
  try {
    tocLocation = tocImageLocation(location)
  } catch (error) {
    if (!hasCode(error, 'invalid-argument')) throw error
    return {tocs: undefined, [Symbol.asyncDispose]: async () => {}}
  }
  const source = await places.source(tocLocation)
  return {tocs: openTocImage(source), [Symbol.asyncDispose]: () => source[Symbol.asyncDispose]()}
}

/**
 * Copies the TOCs beside an image of the store to beside its name on a registry. Throws `not-found` when there are none.
 * Resolves to the name that they have there.
 */
export async function copyTocsBeside(
  places: Pick<Places, 'source' | 'target' | 'signal'>,
  local: string,
  remote: string,
  onProgress: ProgressSink,
): Promise<string> {
  const reference = tocImageName(parseReference(remote))
  await using source = await places.source(tocImageLocation(local))
  await using target = await places.target({transport: 'docker', reference})
  await copyImage(source, target, {
    platforms: 'all',
    index: 'reduced',
    onProgress,
    signal: places.signal,
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
    case 'ipfs':
      throw invalid(text, 'a CID is of one image')
  }
}

function invalid(text: string, problem: string): CodedError {
  return new CodedError(
    'invalid-argument',
    `Cannot keep TOCs in an image beside ${JSON.stringify(text)}: ${problem}`,
  )
}
