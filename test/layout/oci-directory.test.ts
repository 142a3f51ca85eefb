import {execFileSync} from 'node:child_process'
import {chmod, readdir, readFile} from 'node:fs/promises'
import {describe, expect, it} from 'vitest'
import {copyImage} from '../../src/lib/copy/copy-image.ts'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {createLayoutSource, createLayoutTarget} from '../../src/lib/layout/oci-directory.ts'
import {describeWith} from '../support/requires.ts'
import {readBlob, type SampleOptions, writeSampleImage} from '../support/sample-image.ts'
import {temporaryDirectory} from '../support/temporary.ts'

async function write(path: string, tag: string | undefined, options: SampleOptions = {}) {
  await using target = await createLayoutTarget({path, tag})
  const image = await writeSampleImage(target.content, options)
  await target.publish(image.root)
  return image
}

async function resolve(path: string, tag?: string) {
  await using source = createLayoutSource({path, tag})
  return await source.resolve()
}

const OTHER = {layers: [{'other.txt': 'other'}]}

describe('oci:PATH:TAG', () => {
  it('is found by its tag, and alone also without', async () => {
    const path = await temporaryDirectory()
    const {root} = await write(path, 'v1')
    expect(await resolve(path, 'v1')).toEqual(root)
    expect(await resolve(path)).toEqual(root)
  })

  it('moves a tag, and keeps the image that had it', async () => {
    const path = await temporaryDirectory()
    const first = await write(path, 'v1')
    const second = await write(path, 'v1', OTHER)
    expect(await resolve(path, 'v1')).toEqual(second.root)
    await expect(resolve(path)).rejects.toMatchObject({code: 'invalid-argument'})
    await using source = createLayoutSource({path})
    await readBlob(source.content, first.root)
  })

  it('gives one image two tags', async () => {
    const path = await temporaryDirectory()
    const {root} = await write(path, 'v1')
    await write(path, 'v2')
    expect(await resolve(path, 'v1')).toEqual(root)
    expect(await resolve(path, 'v2')).toEqual(root)
  })

  it('without a tag is kept once', async () => {
    const path = await temporaryDirectory()
    const {root} = await write(path, undefined)
    await write(path, undefined)
    expect(await resolve(path)).toEqual(root)
  })

  it('asks which image is meant when there are several, and names them', async () => {
    const path = await temporaryDirectory()
    await write(path, 'v1')
    await write(path, 'v2', OTHER)
    await expect(resolve(path)).rejects.toThrow(/v1, v2/)
    await expect(resolve(path, 'v3')).rejects.toMatchObject({
      code: 'not-found',
      message: expect.stringContaining('v1, v2'),
    })
  })

  it('is not-found in a directory without a layout', async () => {
    const path = await temporaryDirectory()
    await expect(resolve(path)).rejects.toMatchObject({code: 'not-found'})
    await expect(resolve(`${path}/missing`)).rejects.toMatchObject({code: 'not-found'})
    expect(await readdir(path)).toEqual([])
  })

  it('leaves a plain layout and an empty lock', async () => {
    const path = await temporaryDirectory()
    await write(path, 'v1')
    const files = await readdir(path, {recursive: true, withFileTypes: true})
    const names = files.filter(file => file.isFile() && !file.parentPath.includes('blobs'))
    expect(names.map(file => file.name).sort()).toEqual(['index.json', 'lock', 'oci-layout'])
    expect(JSON.parse(await readFile(`${path}/oci-layout`, 'utf8'))).toEqual({imageLayoutVersion: '1.0.0'})
  })

  it('shows no image before it is published', async () => {
    const path = await temporaryDirectory()
    {
      await using target = await createLayoutTarget({path, tag: 'v1'})
      await writeSampleImage(target.content)
    }
    await expect(resolve(path, 'v1')).rejects.toMatchObject({code: 'not-found'})
  })

  it('protects what is being written from a collector of the same directory', async () => {
    const path = await temporaryDirectory()
    await using target = await createLayoutTarget({path, tag: 'v1'})
    const {root, layers} = await writeSampleImage(target.content)
    await using store = await openLocalStore(path)
    await store.collectGarbage()
    await target.publish(root)
    for (const layer of layers) await readBlob(target.content, layer)
  })

  it('takes two writers at once', async () => {
    const path = await temporaryDirectory()
    await Promise.all([write(path, 'v1'), write(path, 'v2', OTHER), write(path, 'v3')])
    for (const tag of ['v1', 'v2', 'v3']) await resolve(path, tag)
  })

  it('can be read without permission to write', async () => {
    const path = await temporaryDirectory()
    const {root} = await write(path, 'v1')
    await chmod(path, 0o555)
    expect(await resolve(path, 'v1')).toEqual(root)
    await chmod(path, 0o755)
  })
})

describeWith(['skopeo'], 'oci: directories and skopeo', () => {
  it('are copied by each other', async () => {
    const [ours, theirs, back] = [
      await temporaryDirectory(),
      await temporaryDirectory(),
      await temporaryDirectory(),
    ]
    const {root} = await write(ours, 'v1')
    execFileSync('skopeo', ['copy', `oci:${ours}:v1`, `oci:${theirs}:v2`])
    await using source = createLayoutSource({path: theirs, tag: 'v2'})
    await using target = await createLayoutTarget({path: back, tag: 'v3'})
    await copyImage(source, target, {platforms: 'all', index: 'sparse'})
    const output = execFileSync('skopeo', ['inspect', '--raw', `oci:${back}:v3`])
    await using copied = createLayoutSource({path: back, tag: 'v3'})
    expect(await copied.resolve()).toMatchObject({digest: root.digest})
    expect(output).toEqual(await readBlob(copied.content, root))
  })
})
