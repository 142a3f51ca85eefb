import {access, mkdir, readFile, stat} from 'node:fs/promises'
import {join} from 'node:path'
import {expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {codeOf, messageOf} from '../../src/lib/errors/coded-error.ts'
import type {ContentStore, OpenBlob} from '../../src/lib/oci/content-store.ts'
import {mountImageRootfs} from '../../src/lib/rootfs/image-rootfs.ts'
import {writeLayerTar} from '../../src/lib/rootfs/layer-tar.ts'
import {runnableImage} from '../support/busybox-image.ts'
import {archive, member} from '../support/tar.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const TAR = archive(member({name: 'zeros'}, Buffer.alloc(20 << 20)), member({name: 'b'}, 'b'))

async function sourceOf(tar: Uint8Array) {
  const {content, manifest} = await runnableImage([tar])
  return {content, layer: manifest.layers[0]!, diffId: digestOf(tar)}
}

it('is the layer to the last byte, and takes no room for zeros', async () => {
  const path = join(await temporaryDirectory(), 'layer.tar')
  const {size, entries} = await writeLayerTar(await sourceOf(TAR), path)
  expect((await readFile(path)).equals(TAR)).toBe(true)
  expect(size).toBe(TAR.length)
  expect(entries.map(entry => entry.path)).toEqual(['zeros', 'b'])
  expect((await stat(path)).blocks * 512).toBeLessThan(1 << 20)
})

it('is not written beyond what the caller allows', async () => {
  const path = join(await temporaryDirectory(), 'layer.tar')
  const failure = await writeLayerTar(await sourceOf(TAR), path, {maxLayerSize: 1_000_000}).catch(
    error => error,
  )
  expect(codeOf(failure)).toBe('unsupported')
  expect(messageOf(failure)).toContain('it decompresses to more than 1000000 bytes, the limit')
})

it('that fails stops the other layers of its image', async () => {
  const {content, manifest, config} = await runnableImage([archive(member({name: 'a'})), TAR], {}, [
    digestOf('of something else'),
    digestOf(TAR),
  ])
  const endless: ContentStore = {
    ...content,
    async open(descriptor, options): Promise<OpenBlob> {
      const blob = await content.open(descriptor, options)
      if (descriptor.digest !== manifest.layers[1]!.digest) return blob
      // Goes on until somebody stops it.
      const stream = async function* () {
        yield await blob.read(0, 20)
        const signal = options?.signal
        await new Promise((_, reject) => {
          signal?.addEventListener('abort', () => reject(signal.reason), {once: true})
          if (signal?.aborted) reject(signal.reason)
        })
      }
      return {...blob, stream}
    },
  }
  const directory = join(await temporaryDirectory(), 'image')
  await mkdir(directory)
  const failure = await mountImageRootfs({content: endless, manifest, config}, directory).catch(
    error => error,
  )
  expect(codeOf(failure)).toBe('corrupt')
  await expect(access(join(directory, 'rootfs', 'a'))).rejects.toThrow()
})
