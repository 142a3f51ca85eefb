// Podman and the layer store: real images from a registry, run, compared file by file, and passed on.

import {execFile} from 'node:child_process'
import {lstat, readFile, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {promisify} from 'node:util'
import {afterAll, beforeAll, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {encodeReferenceName} from '../../src/lib/layer-store/reference-name.ts'
import {TOC_DIGEST} from '../../src/lib/oci/annotations.ts'
import type {Store} from '../../src/lib/oci/image-store.ts'
import {encodeJson} from '../../src/lib/oci/manifest.ts'
import {OCI_INDEX, OCI_MANIFEST} from '../../src/lib/oci/media-type.ts'
import {serveRegistry} from '../../src/lib/registry-server/serve-registry.ts'
import {listLazyLayers} from '../../src/lib/snapshotter-client/snapshotter-client.ts'
import {mountsBelow} from '../support/daemon.ts'
import {LAYER_STORE_HELPER, startLayerStore, type TestLayerStore} from '../support/layer-store.ts'
import {startPodman, type TestPodman} from '../support/podman.ts'
import {describeWith} from '../support/requires.ts'
import {readBlob, writeBlob} from '../support/sample-image.ts'
import {ADDED_FILES, describeTree} from '../support/unpacked-tree.ts'
import {LARGE_SIZE} from './lazy-image.ts'
import {type PodmanStage, startPodmanStage} from './podman-stage.ts'

const run = promisify(execFile)

describeWith(['root', 'podman', 'runc', 'perl', 'getfattr'], 'Podman with a layer store', () => {
  let stage: PodmanStage
  let local: Store
  let store: TestLayerStore
  let podman: TestPodman
  const image = (tag: string) => stage.image(tag)

  beforeAll(async () => {
    stage = await startPodmanStage()
    ;({local, store} = stage)
    podman = await startPodman({layerStores: [store.mountpoint], insecure: [stage.registry.address]})
  })
  afterAll(async () => {
    await podman?.[Symbol.asyncDispose]()
    await stage?.[Symbol.asyncDispose]()
  })

  const layersOf = (tag: string) => listLazyLayers({address: store.address, reference: image(tag)})

  const manifestOf = (tag: string) => stage.manifestOf(tag)

  it('runs an image of which little has been sent', async () => {
    stage.sent = 0
    expect(await podman.podman('run', '--rm', '-q', image('esgz'))).toBe('hello\n')
    expect(stage.sent).toBeLessThan(LARGE_SIZE)
    expect((await layersOf('esgz')).map(({lazy}) => lazy)).toEqual([true, true, true, true])
  })

  it('keeps what is mounted while it is killed, and Podman waiting', async () => {
    const sum = ['busybox', 'sha256sum', '/data/large']
    const expected = await podman.podman('run', '--rm', '-q', image('plain'), ...sum)
    await podman.podman('run', '-d', '--name', 'kept', image('esgz'), 'sleep', '1000')
    await store.stop('SIGKILL')
    const read = podman.podman('exec', 'kept', ...sum)
    const started = podman.podman('run', '--rm', image('esgz'))
    await store.start()
    expect(await read).toBe(expected)
    expect(await started).toBe('hello\n')
    await podman.podman('rm', '--force', '--time', '0', 'kept')
    await podman.podman('rmi', image('plain'))
  })

  it('needs no registry after a restart', async () => {
    await store.stop('SIGTERM')
    stage.sent = 0
    await store.start()
    expect(await podman.podman('run', '--rm', '--pull', 'never', image('esgz'))).toBe('hello\n')
    expect(stage.sent).toBe(0)
  })

  it('shows what is known of a layer under both of its names, with true values', async () => {
    const {layers} = await manifestOf('esgz')
    const {digest, size, annotations} = layers[1]!
    const tocDigest = annotations!['containerd.io/snapshot/stargz/toc.digest']!
    const config = JSON.parse(String(await readBlob(local.content, (await manifestOf('esgz')).config)))
    const common = {
      'compressed-diff-digest': digest,
      'compressed-size': size,
      'diff-size': Number(annotations!['io.containers.estargz.uncompressed-size']),
      compression: 2,
      'toc-digest': tocDigest,
      flags: {'expected-layer-diffid': config.rootfs.diff_ids[1]},
    }
    const directory = join(store.mountpoint, encodeReferenceName(image('esgz')))
    const infoOf = async (name: string) => JSON.parse(await readFile(join(directory, name, 'info'), 'utf8'))
    expect(await infoOf(tocDigest)).toEqual(common)
    expect(await infoOf(digest)).toEqual({...common, 'diff-digest': config.rootfs.diff_ids[1]})
    const blob = await readFile(join(directory, tocDigest, 'blob'))
    expect(blob.equals(await readBlob(local.content, layers[1]!))).toBe(true)
    expect((await lstat(join(directory, tocDigest, 'diff'))).isSymbolicLink()).toBe(true)
  })

  it.each(['zstdchunked', 'stargz'])('serves zstd:chunked of both dialects: %s', async tag => {
    expect(await podman.podman('run', '--rm', '-q', image(tag))).toBe('hello\n')
    expect((await layersOf(tag)).map(({lazy, format}) => [lazy, format])).toEqual(
      Array(4).fill([true, 'zstd:chunked']),
    )
    // By this name newer releases of Podman look for it.
    const {annotations} = (await manifestOf(tag)).layers[1]!
    const name = annotations!['io.github.containers.zstd-chunked.manifest-checksum']
    if (name !== undefined) {
      const directory = join(store.mountpoint, encodeReferenceName(image(tag)), name)
      const info = JSON.parse(await readFile(join(directory, 'info'), 'utf8'))
      expect(info).toMatchObject({'toc-digest': name, compression: 4})
      expect(info['diff-size']).toBeGreaterThan(LARGE_SIZE)
    }
    await podman.podman('rmi', image(tag))
  })

  it('shows the tree that Podman makes by itself', async () => {
    await using ordinary = await startPodman({insecure: [stage.registry.address]})
    const describeImage = async (at: TestPodman, tag: string) => {
      await at.podman('pull', '-q', image(tag))
      const path = (await at.podman('image', 'mount', image(tag))).trim()
      const isOther = (line: string) =>
        !ADDED_FILES.some(name => line.includes(`./${name}`)) && !line.startsWith('. ')
      // First asynchronously: the registry is in this process.
      await run('sh', ['-c', 'find . -type f -exec cat {} + >/dev/null'], {cwd: path})
      const tree = describeTree(path).split('\n').filter(isOther).join('\n')
      await at.podman('image', 'unmount', image(tag))
      return tree
    }
    const expected = await describeImage(ordinary, 'plain')
    expect(expected.split('\n').length).toBeGreaterThan(500)
    expect(await describeImage(podman, 'esgz')).toBe(expected)
  })

  it('lets images be built on, committed, saved and pushed', async () => {
    const container = (await podman.podman('create', image('esgz'), 'cat', '/data/hello')).trim()
    await podman.podman('commit', '-q', container, 'localhost/committed')
    await podman.podman('rm', container)
    expect(await podman.podman('run', '--rm', 'localhost/committed')).toBe('hello\n')
    await podman.podman('push', '-q', image('esgz'), image('pushed'))
    // This Podman compresses anew what it pushes; what it pushes is the same.
    expect((await manifestOf('pushed')).config.digest).toBe((await manifestOf('esgz')).config.digest)
    const archive = join(stage.home, 'saved.tar')
    await podman.podman('save', '-q', '-o', archive, image('esgz'))
    await using ordinary = await startPodman({})
    await ordinary.podman('load', '-q', '-i', archive)
    expect(await ordinary.podman('run', '--rm', image('esgz'))).toBe('hello\n')
    await podman.podman('rmi', 'localhost/committed', image('esgz'))
  })

  it('reads private images with what the helper tells, also after a restart, and logs nothing of it', async () => {
    const [username, password] = ['somebody', 'no-word-of-this']
    await using registry = await serveRegistry(local, {credentials: {username, password}})
    await using own = await startPodman({
      layerStores: [store.mountpoint],
      insecure: [registry.address],
    })
    const reference = `${registry.address}/app:stargz`
    // As newer releases of Podman run it; this one may know no helper.
    const told = run(LAYER_STORE_HELPER, [store.address])
    told.child.stdin!.end(JSON.stringify({[reference]: {username, password}}))
    expect(await told).toEqual({stdout: '', stderr: ''})
    await own.podman('pull', '-q', '--creds', `${username}:${password}`, reference)
    const layers = await listLazyLayers({address: store.address, reference})
    expect(layers.map(({lazy}) => lazy)).toEqual([true, true, true, true])
    await store.stop('SIGKILL')
    await store.start()
    expect(await own.podman('run', '--rm', reference, 'busybox', 'sha256sum', '/data/large')).toMatch(
      /^[0-9a-f]{64} /,
    )
    expect(JSON.stringify(store.log())).not.toContain(password)
    await own.podman('rmi', reference)
  })

  it('goes to the mirrors that registries.conf names, as Podman does', async () => {
    const registries = `[[registry]]
prefix = "registry.invalid/team"
location = "registry.invalid/team"
[[registry.mirror]]
location = "${stage.registry.address}"
insecure = true
`
    const conf = join(stage.home, 'registries.conf')
    await writeFile(conf, registries)
    await using mirrored = await startLayerStore({env: {CONTAINERS_REGISTRIES_CONF: conf}})
    await using own = await startPodman({layerStores: [mirrored.mountpoint], registries})
    const reference = 'registry.invalid/team/app:esgz'
    expect(await own.podman('run', '--rm', '-q', reference)).toBe('hello\n')
    const layers = await listLazyLayers({address: mirrored.address, reference})
    expect(layers.map(({lazy, reason}) => reason ?? lazy)).toEqual([true, true, true, true])
    await own.podman('rmi', reference)
  })

  it('leaves to Podman what it cannot serve, and says why', async () => {
    expect(await podman.podman('run', '--rm', '-q', image('plain'))).toBe('hello\n')
    const refused = await layersOf('plain')
    expect(refused.length).toBe(4)
    for (const {lazy, reason} of refused)
      expect({lazy, reason}).toEqual({lazy: false, reason: expect.stringContaining('it has no TOC')})
    const status = ['lazy', 'status', '--store', 'podman', '--store-address', store.address]
    expect((await stage.user.run(...status, image('plain'))).stdout).toContain('it has no TOC')
    await podman.podman('rmi', image('plain'))
  })

  it('takes no layer whose TOC is not the one that its image names, and Podman has it all the same', async () => {
    const manifest = await manifestOf('esgz')
    const [first, ...others] = manifest.layers
    const layers = [
      {...first!, annotations: {...first!.annotations, [TOC_DIGEST]: digestOf('another')}},
      ...others,
    ]
    const bytes = encodeJson({...manifest, layers})
    await local.images.put('localhost/app:hostile', await writeBlob(local.content, bytes, OCI_MANIFEST))
    expect(await podman.podman('run', '--rm', '-q', image('hostile'))).toBe('hello\n')
    const found = (await layersOf('hostile')).find(({lazy}) => !lazy)
    expect(found?.reason).toContain(digestOf('another'))
    await podman.podman('rmi', image('hostile'))
  })

  it('serves two images with the same layers that are pulled at once', async () => {
    const {target} = (await local.images.get('localhost/app:esgz'))!
    await local.images.put('localhost/app:same', target)
    const tags = ['esgz', 'same']
    await Promise.all(tags.map(tag => podman.podman('pull', '-q', image(tag))))
    for (const tag of tags) expect(await podman.podman('run', '--rm', image(tag))).toBe('hello\n')
    await podman.podman('rmi', image('same'))
    expect(await podman.podman('run', '--rm', image('esgz'))).toBe('hello\n')
    await podman.podman('rmi', image('esgz'))
  })

  it('serves images by digest, out of an index of several platforms, and beside a layer that is not lazy', async () => {
    const {mediaType, digest, size} = (await local.images.get('localhost/app:esgz'))!.target
    const named = `${stage.registry.address}/app@${digest}`
    // Podman does not ask a store again for layers that it has.
    await podman.attempt('rmi', image('esgz'))
    expect(await podman.podman('run', '--rm', '-q', named)).toBe('hello\n')
    const layers = await listLazyLayers({address: store.address, reference: named})
    expect(layers.map(({lazy}) => lazy)).toEqual([true, true, true, true])

    const architecture = process.arch === 'x64' ? 'amd64' : process.arch
    const manifests = [
      {mediaType, digest: digestOf('another platform'), size, platform: {os: 'linux', architecture: 's390x'}},
      {mediaType, digest, size, platform: {os: 'linux', architecture}},
    ]
    const index = encodeJson({schemaVersion: 2, mediaType: OCI_INDEX, manifests})
    await local.images.put('localhost/app:index', await writeBlob(local.content, index, OCI_INDEX))
    expect(await podman.podman('run', '--rm', '-q', image('index'))).toBe('hello\n')

    const [plain, lazy] = [await manifestOf('plain'), await manifestOf('esgz')]
    await stage.putMixed('mixed', plain, lazy)
    expect(await podman.podman('run', '--rm', '-q', image('mixed'))).toBe('hello\n')
    expect((await layersOf('mixed')).filter(one => !one.lazy).map(one => one.digest)).toEqual([
      plain.layers[0]!.digest,
    ])
  })

  it('is built on by a Containerfile, and leaves nothing mounted when Podman prunes', async () => {
    const containerfile = join(stage.home, 'Containerfile')
    await writeFile(containerfile, `FROM ${image('esgz')}\nRUN cp /data/hello /data/built\n`)
    await podman.podman('build', '-q', '-t', 'localhost/built', '-f', containerfile, stage.home)
    expect(await podman.podman('run', '--rm', 'localhost/built', 'cat', '/data/built')).toBe('hello\n')
    expect((await mountsBelow(join(store.directory, 'root/mounts'))).length).toBeGreaterThan(0)
    await podman.podman('system', 'prune', '--all', '--force')
    expect(await podman.podman('images', '-q')).toBe('')
    expect(await mountsBelow(join(store.directory, 'root/mounts'))).toEqual([])
  })

  it('unmounts what nobody uses any more', async () => {
    await podman.podman('pull', '-q', image('esgz'))
    expect((await mountsBelow(join(store.directory, 'root/mounts'))).length).toBeGreaterThan(0)
    await podman.podman('rmi', image('esgz'))
    expect(await mountsBelow(join(store.directory, 'root/mounts'))).toEqual([])
    expect(await layersOf('esgz')).toEqual([])
  })
})
