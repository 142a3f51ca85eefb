// The image that holds the TOCs of another image's layers (external TOC): one layer for each, named by an annotation.

import {digestOf} from '../blob/sha256.ts'
import type {ConvertedManifest} from '../convert/convert-image.ts'
import {writeDocument} from '../copy/copy-image.ts'
import {CodedError} from '../errors/coded-error.ts'
import {extractDetachedToc, MAX_COMPRESSED_TOC_SIZE} from '../estargz/open-layer.ts'
import {readWholeBlob} from '../image/image-tree.ts'
import {EXTERNAL_TOC_LAYER} from '../oci/annotations.ts'
import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import type {ImageSource, ImageTarget} from '../oci/image-store.ts'
import {MAX_MANIFEST_SIZE, parseImageDocument} from '../oci/manifest.ts'
import {OCI_EMPTY, OCI_LAYER_GZIP, OCI_MANIFEST} from '../oci/media-type.ts'
import {type Reference, withTag} from '../oci/reference.ts'

/** What the manifest says it is; required beside an empty config (OCI image-spec, manifest.md). */
const ARTIFACT_TYPE = 'application/vnd.containerd.stargz.toc'

/** Appended to the tag of an image: where readers look for its TOCs. */
export const TOC_TAG_SUFFIX = '-esgztoc'

/** The name of the image that has the TOCs of `reference`. Throws `invalid-argument` for one that is only a digest. */
export function tocImageName(reference: Reference): string {
  if (reference.digest !== undefined && reference.tag === undefined) {
    throw new CodedError(
      'invalid-argument',
      `Cannot keep TOCs in an image beside ${JSON.stringify(reference.text)}: the image needs a tag, because no digest could name both`,
    )
  }
  return withTag(reference, `${reference.tag ?? 'latest'}${TOC_TAG_SUFFIX}`).text
}

/** Writes and publishes the TOCs of all layers that were converted, of every platform, in one manifest. */
export async function writeTocImage(
  target: ImageTarget,
  manifests: readonly ConvertedManifest[],
  options: CallOptions = {},
): Promise<Descriptor> {
  const tocs = new Map<Digest, Uint8Array>()
  for (const {descriptor, detachedToc} of manifests.flatMap(({layers}) => layers)) {
    if (detachedToc) tocs.set(descriptor.digest, detachedToc)
  }
  const layers: Descriptor[] = []
  for (const [layer, toc] of tocs) layers.push(await writeToc(target.content, layer, toc, options))
  layers.sort((left, right) => (left.digest < right.digest ? -1 : 1))
  const config = await writeDocument(target.content, {}, OCI_EMPTY, options)
  const manifest = {schemaVersion: 2, mediaType: OCI_MANIFEST, artifactType: ARTIFACT_TYPE, config, layers}
  const root = await writeDocument(target.content, manifest, OCI_MANIFEST, options)
  await target.publish(root, options)
  return root
}

async function writeToc(
  content: ContentStore,
  layer: Digest,
  toc: Uint8Array,
  options: CallOptions,
): Promise<Descriptor> {
  const descriptor = {mediaType: OCI_LAYER_GZIP, digest: digestOf(toc), size: toc.length}
  await using writer = await content.write(descriptor, options)
  await writer.write(toc)
  await writer.commit(descriptor, options)
  return {...descriptor, annotations: {[EXTERNAL_TOC_LAYER]: layer}}
}

/** Reads TOCs out of a TOC image; the image is looked up at the first call. */
export interface TocImage {
  /** The TOC's JSON of a layer, unverified; throws `not-found`, or `corrupt` for what cannot be read. */
  tocOf(layer: Digest, options?: CallOptions): Promise<Uint8Array>
}

export function openTocImage(source: ImageSource): TocImage {
  let layers: Promise<readonly Descriptor[]> | undefined
  return {
    async tocOf(layer, options = {}) {
      const found = (await (layers ??= readLayers(source, options))).find(
        ({annotations}) => annotations?.[EXTERNAL_TOC_LAYER] === layer,
      )
      if (!found) throw new CodedError('not-found', `Cannot find the TOC of ${layer} in ${source.name}`)
      const bytes = await readWholeBlob(source.content, found, MAX_COMPRESSED_TOC_SIZE, options)
      return extractDetachedToc(bytes, `the TOC of ${layer} in ${source.name}`)
    },
  }
}

async function readLayers(source: ImageSource, options: CallOptions): Promise<readonly Descriptor[]> {
  const root = await source.resolve(options)
  const bytes = await readWholeBlob(source.content, root, MAX_MANIFEST_SIZE, options)
  const document = parseImageDocument(bytes, root.mediaType, `the TOC image ${source.name}`)
  if (document.kind === 'manifest') return document.manifest.layers
  throw new CodedError('corrupt', `Cannot use the TOC image ${source.name}: it is an index`)
}
