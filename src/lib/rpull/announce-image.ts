// Says to a snapshotter which image it will be asked for, while containerd is still being opened: what opens its layers is on its
// way then.

import {inheritedLabels} from '../containerd/unpack.ts'
import {hasCode} from '../errors/coded-error.ts'
import {readConfig, readImageTree} from '../image/image-tree.ts'
import {rememberDocuments} from '../image/remember-documents.ts'
import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {ImageSource} from '../oci/image-store.ts'
import {lazyLabels} from './lazy-labels.ts'
import {isRunnable, type LayerSnapshots, type LazyPullOptions, mayBeLazy} from './lazy-pull.ts'

export interface AnnounceOptions
  extends Pick<LazyPullOptions, 'platforms' | 'reference' | 'skipContentVerify' | 'signal'> {
  readonly snapshots: Promise<LayerSnapshots>
  /** Where the image goes: what is there already needs no announcement. */
  readonly content: ContentStore
}

/** `source`, whose documents are being read. Their failures are for whoever asks for them. */
export function readAhead(
  source: ImageSource,
  {platforms, signal}: Pick<LazyPullOptions, 'platforms' | 'signal'>,
): ImageSource {
  const content = rememberDocuments(source.content)
  const read = async () => {
    const {manifests} = await readImageTree(content, await source.resolve({signal}), platforms, {signal})
    await Promise.all(
      manifests.filter(isRunnable).map(({manifest}) => readConfig(content, manifest, {signal})),
    )
  }
  read().catch(() => undefined)
  return {
    name: source.name,
    content,
    resolve: source.resolve.bind(source),
    [Symbol.asyncDispose]: source[Symbol.asyncDispose].bind(source),
  }
}

/** Announces the images of `source` whose layers can be lazy. Never fails: who pulls them hears what is wrong. */
export async function announceImage(source: ImageSource, options: AnnounceOptions): Promise<void> {
  const {platforms, signal, content} = options
  try {
    const root = await source.resolve({signal})
    const [{manifests}, snapshots] = await Promise.all([
      readImageTree(source.content, root, platforms, {signal}),
      options.snapshots,
    ])
    // One after the other, as they are pulled.
    for (const {descriptor, manifest} of manifests.filter(isRunnable)) {
      const {layers} = manifest
      const first = layers.findIndex(layer => mayBeLazy(layer, {...options, snapshots}))
      if (first < 0 || (await isThere(content, descriptor, {signal}))) continue
      const image = {...options, manifestDigest: descriptor.digest, layers}
      const labels = {...inheritedLabels(layers[first]!), ...lazyLabels(image, first)}
      await snapshots.announce(labels, {signal})
      return
    }
  } catch {}
}

async function isThere(
  content: ContentStore,
  descriptor: Descriptor,
  options: CallOptions,
): Promise<boolean> {
  try {
    await using _ = await content.open(descriptor, options)
    return true
  } catch (error) {
    if (hasCode(error, 'not-found')) return false
    throw error
  }
}
