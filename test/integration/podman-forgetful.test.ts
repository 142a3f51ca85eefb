// A newer Podman and a layer store: since 4.4 Podman forgets a store's layers when a command ends, and asks for them again
// in the next one.

import {chmod, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {afterAll, beforeAll, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {ZSTD_CHUNKED_CHECKSUM} from '../../src/lib/oci/annotations.ts'
import {encodeJson} from '../../src/lib/oci/manifest.ts'
import {OCI_MANIFEST} from '../../src/lib/oci/media-type.ts'
import {serveRegistry} from '../../src/lib/registry-server/serve-registry.ts'
import {listLazyLayers} from '../../src/lib/snapshotter-client/snapshotter-client.ts'
import {LAYER_STORE_HELPER} from '../support/layer-store.ts'
import {newerPrograms} from '../support/newer-programs.ts'
import {startPodman, type TestPodman} from '../support/podman.ts'
import {describeWith} from '../support/requires.ts'
import {writeBlob} from '../support/sample-image.ts'
import {LARGE_SIZE} from './lazy-image.ts'
import {type PodmanStage, startPodmanStage} from './podman-stage.ts'

describeWith(['root', 'newer-podman', 'runc', 'perl'], 'a newer Podman with a layer store', () => {
  const programs = newerPrograms('podman')
  let stage: PodmanStage
  let podman: TestPodman
  const image = (tag: string) => stage.image(tag)

  beforeAll(async () => {
    stage = await startPodmanStage()
    const layerStores = [stage.store.mountpoint]
    podman = await startPodman({programs, layerStores, insecure: [stage.registry.address]})
  })
  afterAll(async () => {
    await podman?.[Symbol.asyncDispose]()
    await stage?.[Symbol.asyncDispose]()
  })

  const layersOf = (reference: string) => listLazyLayers({address: stage.store.address, reference})

  it('runs an image of which little has been sent, and nothing of its layers the next time', async () => {
    stage.sent = 0
    expect(await podman.podman('run', '--rm', '-q', image('esgz'))).toBe('hello\n')
    expect(stage.sent).toBeLessThan(LARGE_SIZE)
    expect((await layersOf(image('esgz'))).map(({lazy}) => lazy)).toEqual([true, true, true, true])
    stage.sent = 0
    expect(await podman.podman('run', '--rm', '-q', image('esgz'))).toBe('hello\n')
    // The manifest and the config.
    expect(stage.sent).toBeLessThan(10_000)
  })

  it.each(['zstdchunked', 'stargz'])('serves zstd:chunked of both dialects: %s', async tag => {
    expect(await podman.podman('run', '--rm', '-q', image(tag))).toBe('hello\n')
    const layers = await layersOf(image(tag))
    expect(layers.map(({lazy, format}) => [lazy, format])).toEqual(Array(4).fill([true, 'zstd:chunked']))
  })

  it('serves zstd:chunked that Podman pushed, unless its TOC is another than its manifest says', async () => {
    await using ordinary = await startPodman({programs, insecure: [stage.registry.address]})
    await ordinary.podman('pull', '-q', image('plain'))
    const push = ['push', '-q', '--compression-format', 'zstd:chunked', '--force-compression']
    await ordinary.podman(...push, image('plain'), image('pushed'))
    stage.sent = 0
    expect(await podman.podman('run', '--rm', '-q', image('pushed'))).toBe('hello\n')
    expect(stage.sent).toBeLessThan(LARGE_SIZE)
    const lazy = (await layersOf(image('pushed'))).map(layer => [layer.lazy, layer.format])
    expect(lazy).toEqual(Array(4).fill([true, 'zstd:chunked']))

    const {layers, ...manifest} = await stage.manifestOf('pushed')
    const [first, ...others] = layers
    const annotations = {...first!.annotations, [ZSTD_CHUNKED_CHECKSUM]: digestOf('another')}
    const lying = encodeJson({...manifest, layers: [{...first!, annotations}, ...others]})
    await stage.local.images.put(
      'localhost/app:lying',
      await writeBlob(stage.local.content, lying, OCI_MANIFEST),
    )
    const rpull = ['image', 'rpull', '--store', 'podman', '--store-address', stage.store.address]
    const {exitCode, stderr} = await stage.user.run(...rpull, image('lying'))
    expect(exitCode).toBe(0)
    expect(stderr.match(/is not lazy/g)).toHaveLength(1)
    expect(stderr).toContain(`not ${digestOf('another')}`)
  })

  it('keeps what is mounted while it is killed, and Podman waiting', async () => {
    const sum = ['busybox', 'sha256sum', '/data/large']
    const expected = await podman.podman('run', '--rm', '-q', image('plain'), ...sum)
    await podman.podman('run', '-d', '--name', 'kept', image('esgz'), 'sleep', '1000')
    await stage.store.stop('SIGKILL')
    const read = podman.podman('exec', 'kept', ...sum)
    const started = podman.podman('run', '--rm', '-q', image('esgz'))
    await stage.store.start()
    expect(await read).toBe(expected)
    expect(await started).toBe('hello\n')
    await podman.podman('rm', '--force', '--time', '0', 'kept')
  })

  it('is built on by a Containerfile', async () => {
    const containerfile = join(stage.home, 'Containerfile')
    await writeFile(containerfile, `FROM ${image('esgz')}\nRUN cp /data/hello /data/built\n`)
    const flags = ['-q', '--network', 'none', '-t', 'localhost/built', '-f', containerfile]
    await podman.podman('build', ...flags, stage.home)
    expect(await podman.podman('run', '--rm', 'localhost/built', 'cat', '/data/built')).toBe('hello\n')
  })

  it('reads private images with what Podman tells the helper, also after a restart, and logs nothing of it', async () => {
    const [username, password] = ['somebody', 'no-word-of-this']
    await using registry = await serveRegistry(stage.local, {credentials: {username, password}})
    const authHelper = join(stage.home, 'auth-helper')
    await writeFile(authHelper, `#!/bin/sh\nexec ${LAYER_STORE_HELPER} ${stage.store.address}\n`)
    await chmod(authHelper, 0o755)
    const layerStores = [stage.store.mountpoint]
    await using own = await startPodman({programs, layerStores, insecure: [registry.address], authHelper})
    const reference = `${registry.address}/app:esgz`
    await own.podman('pull', '-q', '--creds', `${username}:${password}`, reference)
    const layers = await layersOf(reference)
    expect(layers.map(({lazy}) => lazy)).toEqual([true, true, true, true])
    await stage.store.stop('SIGKILL')
    await stage.store.start()
    const sum = ['busybox', 'sha256sum', '/data/large']
    const pulled = await own.podman(
      'run',
      '--rm',
      '-q',
      '--creds',
      `${username}:${password}`,
      reference,
      ...sum,
    )
    expect(pulled).toMatch(/^[0-9a-f]{64} /)
    expect(JSON.stringify(stage.store.log())).not.toContain(password)
  })
})
