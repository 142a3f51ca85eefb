import {mkdir, readdir} from 'node:fs/promises'
import {join} from 'node:path'
import {expect, it, onTestFinished} from 'vitest'
import {openKeeper} from '../../src/lib/fuse/keeper.ts'
import {runCommandOrThrow} from '../../src/lib/io/run-command.ts'
import {findMount} from '../../src/lib/mount/mount-table.ts'
import {describeWith} from '../support/requires.ts'
import {createBackend, deviceName, mountableLayer} from './create-backend.ts'
import {describeBackends, mountDirectory} from './open-backend.ts'
import {createSampleDevice} from './sample-device.ts'
import {createLayerBuilder, directory} from './sample-layer.ts'

describeWith(['root'], 'a mount that has outlived the process that served it', () => {
  describeBackends(kind => {
    it('is not taken over by the second one after it, where the first could not mount the layer', async () => {
      const base = await mountDirectory()
      const keeper = await openKeeper({directory: join(base, 'keeper')})
      const silent = () => {}
      const settings = {directory: base, log: {info: silent, debug: silent, warn: silent}}
      const {file, layer} = createLayerBuilder()
      const sample = layer(directory({a: file('contents of a')}))
      const device = createSampleDevice(sample, base, deviceName('layer'))
      onTestFinished(() => device.close())
      const mountable = mountableLayer(base, sample, device)
      const mountpoint = join(base, 'layer')
      await mkdir(mountpoint)

      const first = await createBackend(kind, settings)
      await first.mount(mountable, mountpoint, {})
      // Nobody holds its descriptor: what it served is dead.
      await first.close('leave')
      expect(await findMount(mountpoint)).toBeDefined()

      const second = await createBackend(kind, {...settings, keeper})
      if (kind === 'erofs') expect(await findMount(mountpoint)).toBeUndefined()
      await second.close('leave')

      const third = await createBackend(kind, {...settings, keeper})
      onTestFinished(() => third.close('unmount'))
      await third.mount(mountable, mountpoint, {})
      third.resume()
      onTestFinished(() => third.unmount(mountpoint))
      expect(await readdir(mountpoint)).toEqual(['a'])
      const {stdout} = await runCommandOrThrow('cat', [join(mountpoint, 'a')])
      expect(stdout).toBe('contents of a')
    })
  })
})
