import {mkdir, mkdtemp, open, rm, writeFile} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {afterAll, beforeAll, expect, it} from 'vitest'
import {runCommandOrThrow} from '../../src/lib/io/run-command.ts'
import {extractTree} from '../../src/lib/rootfs/extract-tree.ts'
import {describeWith} from '../support/requires.ts'
import {describeTree, type TreeDescription} from './describe-tree.ts'
import {describeBackends, openBackend} from './open-backend.ts'
import {richLayer} from './rich-tree.ts'
import {createSampleDevice} from './sample-device.ts'
import {createLayerBuilder, directory} from './sample-layer.ts'

const layer = richLayer()

describeWith(['root', 'getfattr'], 'a lazily mounted layer', () => {
  let base: string
  let plain: TreeDescription

  beforeAll(async () => {
    base = await mkdtemp(join(tmpdir(), 'ctr-remote-test-'))
    await writeFile(join(base, 'data'), layer.data(0, layer.size))
    await mkdir(join(base, 'plain'))
    await using data = await open(join(base, 'data'))
    await extractTree(layer.root, join(base, 'plain'), () => data)
    plain = await describeTree(join(base, 'plain'))
  })

  afterAll(() => rm(base, {recursive: true, force: true}))

  describeBackends(kind => {
    it('is what a plain copy would be: cold, warm, and mounted again', async () => {
      const backend = await openBackend(kind)
      const {path, device} = await backend.mount(layer)
      expect(device.presentBlocks()).toBe(0)
      expect(await describeTree(path)).toEqual(plain)

      const fetched = device.reads.length
      expect(await describeTree(path)).toEqual(plain)
      expect(device.reads).toHaveLength(fetched)

      await backend.unmount('layer')
      await backend.mount(layer, 'layer', device)
      expect(await describeTree(path)).toEqual(plain)
      expect(device.reads).toHaveLength(fetched)
    })

    it('is the same when everything has been fetched before', async () => {
      const backend = await openBackend(kind)
      const device = createSampleDevice(layer, backend.directory, 'c0ffee')
      device.fill()
      const {path} = await backend.mount(layer, 'layer', device)
      expect(await describeTree(path)).toEqual(plain)
      expect(device.reads).toEqual([])
    })

    it('can be settled once it is complete, under the eyes of who reads it', async () => {
      const backend = await openBackend(kind)
      const {path, device, mountable} = await backend.mount(layer)
      const reader = describeTree(path)
      device.fill()
      const settled = await backend.backend.settle(mountable, path)
      expect(await reader).toEqual(plain)
      expect(await describeTree(path)).toEqual(plain)
      if (settled === 'plain') {
        // Nobody serves it any more.
        await backend.close()
        expect(await describeTree(path)).toEqual(plain)
      }
      expect(settled).toBe(kind === 'erofs' ? 'plain' : 'fuse')
    })

    it('fetches nothing to list it', async () => {
      const backend = await openBackend(kind)
      const {path, device} = await backend.mount(layer)
      const {stdout} = await runCommandOrThrow('find', ['.', '-ls'], {cwd: path})
      expect(stdout.trimEnd().split('\n').length).toBeGreaterThanOrEqual(Object.keys(plain).length)
      await runCommandOrThrow('du', ['-s', '.'], {cwd: path})
      expect(device.reads).toEqual([])
    })

    it('is empty where the layer is', async () => {
      const backend = await openBackend(kind)
      const {path} = await backend.mount(createLayerBuilder().layer(directory({}, {mode: 0o711, uid: 3})))
      expect(Object.keys(await describeTree(path))).toEqual(['.'])
      expect((await describeTree(path))['.']).toBe('40711 links 2 3:0 0ns')
    })

    it('stands beside others, and leaves them alone when it goes', async () => {
      const backend = await openBackend(kind)
      const {file, layer: build} = createLayerBuilder()
      const other = build(directory({'other-file': file('another layer')}))
      const one = await backend.mount(layer, 'one')
      const two = await backend.mount(other, 'two')
      expect(Object.keys(await describeTree(two.path))).toEqual(['.', 'other-file'])
      await backend.unmount('two')
      expect(await describeTree(one.path)).toEqual(plain)
    })
  })
})
