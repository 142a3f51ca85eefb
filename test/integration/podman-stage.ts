// What Podman and a layer store are tried with: an image, as it is and as eStargz, in a registry that counts what it sends.

import {mkdtemp, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import type {Store} from '../../src/lib/oci/image-store.ts'
import {encodeJson, type ImageManifest, parseImageDocument} from '../../src/lib/oci/manifest.ts'
import {OCI_MANIFEST} from '../../src/lib/oci/media-type.ts'
import {type RunningRegistry, serveRegistry} from '../../src/lib/registry-server/serve-registry.ts'
import {createUser, type User} from '../support/ctr-remote.ts'
import {startLayerStore, type TestLayerStore, type TestLayerStoreOptions} from '../support/layer-store.ts'
import {readBlob, writeBlob} from '../support/sample-image.ts'
import {lazyImage} from './lazy-image.ts'

export interface PodmanStage extends AsyncDisposable {
  readonly home: string
  readonly user: User
  /** What the registry serves. */
  readonly local: Store
  readonly registry: RunningRegistry
  readonly store: TestLayerStore
  /** What the registry has sent since this was set, bytes. */
  sent: number
  /** The reference of the image: `plain`, `esgz`, `zstdchunked` or `stargz`, which is zstd:chunked in its other dialect. */
  image(tag: string): string
  manifestOf(tag: string): Promise<ImageManifest>
  /** Puts an image whose first layer is that of `first`, and whose others are those of `others`; its reference. */
  putMixed(tag: string, first: ImageManifest, others: ImageManifest): Promise<string>
}

/** The flags of `convert`, by the tag of what they make. */
const CONVERSIONS = {
  esgz: ['--estargz'],
  zstdchunked: ['--zstdchunked'],
  stargz: ['--zstdchunked', '--zstdchunked-dialect', 'stargz'],
}

/** With `rootless`, the layer store is in a user namespace; `directory` is where it is. */
export async function startPodmanStage(
  options: Pick<TestLayerStoreOptions, 'directory' | 'rootless'> = {},
): Promise<PodmanStage> {
  const stack = new AsyncDisposableStack()
  try {
    const home = await mkdtemp(join(tmpdir(), 'ctr-remote-podman-stage-'))
    stack.defer(() => rm(home, {recursive: true, force: true}))
    const user = stack.use(await createUser())
    const local = stack.use(await openLocalStore(join(home, 'store')))
    const built = await lazyImage()
    {
      await using _ = await local.lease()
      let root: Descriptor | undefined
      for (const [digest, bytes] of built.content.blobs) {
        const written = await writeBlob(local.content, bytes)
        if (digest === built.manifestDigest) root = {...written, mediaType: built.manifest.mediaType!}
      }
      await local.images.put('localhost/app:plain', root!)
    }
    const registry = stack.use(
      await serveRegistry(local, {
        onRequest: ({sentBytes}) => {
          stage.sent += sentBytes
        },
      }),
    )
    const image = (tag: string) => `${registry.address}/app:${tag}`
    const store = stack.use(await startLayerStore({...options, config: 'no_background_fetch = true\n'}))
    const configOf = async ({config}: ImageManifest) =>
      JSON.parse(String(await readBlob(local.content, config)))
    const stage: PodmanStage = {
      home,
      user,
      local,
      registry,
      store,
      sent: 0,
      image,
      async manifestOf(tag) {
        const {target} = (await local.images.get(`localhost/app:${tag}`))!
        const document = parseImageDocument(await readBlob(local.content, target), target.mediaType, tag)
        if (document.kind !== 'manifest') throw new Error(`${tag} is an index`)
        return document.manifest
      },
      async putMixed(tag, first, others) {
        const [firstConfig, config] = [await configOf(first), await configOf(others)]
        const diffIds = [firstConfig.rootfs.diff_ids[0], ...config.rootfs.diff_ids.slice(1)]
        const ownConfig = encodeJson({...config, rootfs: {...config.rootfs, diff_ids: diffIds}})
        const manifest = encodeJson({
          ...others,
          config: await writeBlob(local.content, ownConfig, others.config.mediaType),
          layers: [{...first.layers[0]!, mediaType: others.layers[0]!.mediaType}, ...others.layers.slice(1)],
        })
        await local.images.put(`localhost/app:${tag}`, await writeBlob(local.content, manifest, OCI_MANIFEST))
        return image(tag)
      },
      [Symbol.asyncDispose]: () => stack.disposeAsync(),
    }
    for (const [tag, flags] of Object.entries(CONVERSIONS)) {
      const places = [`docker://${image('plain')}`, `docker://${image(tag)}`]
      const {exitCode, stderr} = await user.run('image', 'convert', '--oci', ...flags, ...places)
      if (exitCode !== 0) throw new Error(stderr)
    }
    return stage
  } catch (error) {
    await stack.disposeAsync()
    throw error
  }
}
