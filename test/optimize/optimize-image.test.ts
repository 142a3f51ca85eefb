import {readFile} from 'node:fs/promises'
import {join} from 'node:path'
import {expect, it} from 'vitest'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import type {ImageSource, Store} from '../../src/lib/oci/image-store.ts'
import {OCI_MANIFEST} from '../../src/lib/oci/media-type.ts'
import {optimizeImage} from '../../src/lib/optimize/optimize-image.ts'
import type {Priorities} from '../../src/lib/optimize/priorities.ts'
import {parseProfile} from '../../src/lib/record/profile-file.ts'
import {createRegistryImageSource} from '../../src/lib/registry/image.ts'
import {openRegistry} from '../../src/lib/registry/registry.ts'
import {serveRegistry} from '../../src/lib/registry-server/serve-registry.ts'
import {openStoreSource} from '../../src/lib/transport/store-image.ts'
import {busyboxLayer, runnableImage} from '../support/busybox-image.ts'
import {ESTARGZ} from '../support/formats.ts'
import {describeWith} from '../support/requires.ts'
import {member} from '../support/tar.ts'
import {temporaryDirectory} from '../support/temporary.ts'

/** Writes an image that prints `/data/read` to a store. */
async function writeImage(store: Store, text: string): Promise<Descriptor> {
  const layer = busyboxLayer(member({name: 'data/other'}, 'other'), member({name: 'data/read'}, text))
  const {content, manifestDigest} = await runnableImage([layer], {Cmd: ['/bin/cat', '/data/read']})
  for (const [digest, bytes] of content.blobs) {
    await using writer = await store.content.write({mediaType: '', digest})
    await writer.write(bytes)
    await writer.commit({digest, size: bytes.length})
  }
  return {mediaType: OCI_MANIFEST, digest: manifestDigest, size: content.blobs.get(manifestDigest)!.length}
}

describeWith(['root', 'runc', '/usr/bin/busybox'], 'optimizing an image', () => {
  it('writes a profile, from which the same image comes without a run', async () => {
    await using store = await openLocalStore(await temporaryDirectory())
    await using _lease = await store.lease()
    await store.images.put('localhost/app:1', await writeImage(store, 'first'))
    const directory = await temporaryDirectory()
    const profileOut = join(directory, 'profile')
    const optimize = async (priorities: Priorities) => {
      await using source = await openStoreSource(store, 'localhost/app:1')
      const image = {
        name: 'the target',
        content: store.content,
        publish: async () => {},
        [Symbol.asyncDispose]: async () => {},
      }
      return await optimizeImage(
        source,
        {image, beforePublish: undefined},
        {
          format: ESTARGZ,
          oci: true,
          platforms: 'all',
          priorities,
          reuse: false,
          memoryDirectory: undefined,
          temporaryDirectory: directory,
          onProgress: () => {},
          say: () => {},
          signal: new AbortController().signal,
        },
      )
    }
    const ran = await optimize({
      from: 'workload',
      workload: {},
      periodSeconds: 60,
      waitOnSignal: false,
      profileOut,
    })
    const record = parseProfile(await readFile(profileOut), 'it')
    expect(record.map(({path}) => path)).toEqual(expect.arrayContaining(['data/read']))
    expect((await optimize({from: 'profiles', files: [profileOut]})).root).toEqual(ran.root)
    const recordOut = join(directory, 'record')
    const predicted = await optimize({from: 'image', workload: {}, recordOut})
    const told = parseProfile(await readFile(recordOut), 'it')
    expect(told.map(({path}) => path)).toEqual(['bin/busybox', 'data/read'])
    expect(predicted.manifests[0]!.layers[0]!.prioritized).toMatchObject({files: 2, missing: []})
  })

  it('converts the image that ran, though its tag in the registry moves on meanwhile', async () => {
    await using store = await openLocalStore(await temporaryDirectory())
    await using _lease = await store.lease()
    const first = await writeImage(store, 'first')
    const second = await writeImage(store, 'second')
    await store.images.put('localhost/app:1', first)
    await using server = await serveRegistry(store)
    await using registry = openRegistry({userAgent: 'test'})
    const reference = `${server.address}/app:1`
    const named = createRegistryImageSource(reference, {registry})
    const source: ImageSource = {
      ...named,
      content: named.content,
      async resolve(options) {
        const root = await named.resolve(options)
        await store.images.put('localhost/app:1', second)
        return root
      },
    }
    const image = {
      name: 'the target',
      content: store.content,
      publish: async () => {},
      [Symbol.asyncDispose]: async () => {},
    }
    const converted = await optimizeImage(
      source,
      {image, beforePublish: undefined},
      {
        format: ESTARGZ,
        oci: true,
        platforms: 'all',
        priorities: {from: 'workload', workload: {}, periodSeconds: 60, waitOnSignal: false},
        reuse: false,
        memoryDirectory: undefined,
        temporaryDirectory: await temporaryDirectory(),
        onProgress: () => {},
        say: () => {},
        signal: new AbortController().signal,
      },
    )
    expect((await named.resolve()).digest).toBe(second.digest)
    expect(converted.manifests.map(({source}) => source)).toEqual([first.digest])
    const [layer] = converted.manifests[0]!.layers
    expect(layer!.prioritized).toMatchObject({missing: [], unmoved: []})
    expect(layer!.prioritized!.files).toBeGreaterThan(1)
  })
})
