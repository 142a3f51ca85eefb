// The console sessions of the reference's documents, on small images out of a registry here.

import {spawn} from 'node:child_process'
import {once} from 'node:events'
import {mkdir, writeFile} from 'node:fs/promises'
import {join, resolve} from 'node:path'
import {expect, it, onTestFinished} from 'vitest'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import type {ContentStore} from '../../src/lib/oci/content-store.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import {encodeJson, type RunConfig} from '../../src/lib/oci/manifest.ts'
import {
  DOCKER_CONFIG,
  DOCKER_LAYER_GZIP,
  DOCKER_MANIFEST,
  OCI_INDEX,
  OCI_MANIFEST,
} from '../../src/lib/oci/media-type.ts'
import {serveRegistry} from '../../src/lib/registry-server/serve-registry.ts'
import {busyboxLayer, executable, runnableImage} from '../support/busybox-image.ts'
import {stargzPlugin, startContainerd} from '../support/containerd.ts'
import {createUser} from '../support/ctr-remote.ts'
import {startIpfsNode} from '../support/ipfs-node.ts'
import {describeWith} from '../support/requires.ts'
import {writeBlob, writeSampleImage} from '../support/sample-image.ts'
import {snapshotterAddress, snapshotterDirectory, startSnapshotter} from '../support/snapshotter.ts'
import {archive, directory, member} from '../support/tar.ts'

const SESSIONS = resolve(import.meta.dirname, '../../examples/founding/sessions.sh')

/** What the sessions call: programs that do as much of it as is seen. */
const PROGRAMS = archive(
  directory('./'),
  executable('bin/bash', '#!/bin/sh\nexec /bin/sh "$@"\n'),
  executable('bin/echo', '#!/bin/sh\necho "$@"\n'),
  executable('bin/python', `#!/bin/sh\necho 'Hello, World!'\n`),
  executable('bin/go', '#!/bin/sh\ncat /data/version\n[ "$1" = version ] || cp /bin/echo /hello\n'),
)
const DATA = archive(directory('./'), directory('data/'), member({name: 'data/version'}, 'go1.15.3\n'))

/** Writes an image with these programs; resolves to its manifest. */
async function writeImage(content: ContentStore, config: RunConfig): Promise<Descriptor> {
  const image = await runnableImage([busyboxLayer(), PROGRAMS, DATA], config)
  for (const bytes of image.content.blobs.values()) await writeBlob(content, bytes)
  return writeBlob(content, encodeJson(image.manifest), OCI_MANIFEST)
}

/** The same as Docker wrote it. */
async function writeDockerImage(content: ContentStore, config: RunConfig): Promise<Descriptor> {
  const image = await runnableImage([busyboxLayer(), PROGRAMS, DATA], config)
  for (const bytes of image.content.blobs.values()) await writeBlob(content, bytes)
  const {manifest} = image
  const docker = {
    ...manifest,
    mediaType: DOCKER_MANIFEST,
    config: {...manifest.config, mediaType: DOCKER_CONFIG},
    layers: manifest.layers.map(layer => ({...layer, mediaType: DOCKER_LAYER_GZIP})),
  }
  return writeBlob(content, encodeJson(docker), DOCKER_MANIFEST)
}

const NEEDS = ['root', 'containerd', 'ctr', 'runc', 'script', '/usr/lib/cni/loopback']

describeWith(NEEDS, "the console sessions of the reference's documents", () => {
  it('run as they are written', {timeout: 300_000}, async () => {
    await using undo = new AsyncDisposableStack()
    const user = undo.use(await createUser())
    const store = await openLocalStore(join(user.home, 'registry'))
    {
      await using _ = await store.lease()
      const {content, images} = store
      const put = (name: string, root: Descriptor) => images.put(`localhost/${name}`, root)
      const image = await writeImage(content, {Env: ['PATH=/bin'], Cmd: ['go', 'version']})
      const other = (await writeSampleImage(content, {architecture: 'arm64'})).root
      const manifests = [
        {...image, platform: {os: 'linux', architecture: 'amd64'}},
        {...other, platform: {os: 'linux', architecture: 'arm64'}},
      ]
      const index = await writeBlob(
        content,
        encodeJson({schemaVersion: 2, mediaType: OCI_INDEX, manifests}),
        OCI_INDEX,
      )
      await put('stargz-containers/golang:1.15.3-buster-org', index)
      await put('stargz-containers/python:3.9-org', index)
      await put('stargz-containers/ubuntu:22.04', image)
      await put('library/ubuntu:18.04', await writeDockerImage(content, {Env: ['PATH=/bin'], Cmd: ['bash']}))
    }
    const registry = undo.use(await serveRegistry(store))
    const node = undo.use(await startIpfsNode())
    const path = await snapshotterDirectory()
    undo.use(
      await startSnapshotter({
        directory: path,
        config: 'ipfs = true\nmount_backend = "fuse"\nallow_no_verification = true\n',
        env: {IPFS_PATH: node.repository},
      }),
    )
    const containerd = undo.use(await startContainerd({config: stargzPlugin(snapshotterAddress(path))}))
    const namespace = `founding-${process.pid}`
    undo.defer(async () => {
      const names = (await containerd.ctr('-n', namespace, 'images', 'ls', '-q')).split('\n').filter(Boolean)
      await containerd.ctr('-n', namespace, 'images', 'rm', '--sync', ...names)
    })
    const networks = join(user.home, 'networks')
    await mkdir(networks)
    const config = {cniVersion: '0.4.0', name: namespace, plugins: [{type: 'loopback'}]}
    await writeFile(join(networks, '10-test.conflist'), JSON.stringify(config))

    const child = spawn(SESSIONS, [], {
      env: {
        PATH: process.env.PATH,
        HOME: user.home,
        DOCKER_CONFIG: user.home,
        CONTAINERD_ADDRESS: containerd.address,
        CONTAINERD_NAMESPACE: namespace,
        ORIGIN: registry.address,
        REGISTRY: registry.address,
        IPFS_PATH: node.repository,
        CNI_CONFIG: networks,
        CNI_PLUGINS: '/usr/lib/cni',
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    onTestFinished(() => void child.kill('SIGKILL'))
    let output = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', text => {
        output += text
      })
    }
    const [code] = await once(child, 'close')
    expect(code, output).toBe(0)
    const lines = output.split('\n').map(line => line.trim())
    // What the documents show, with the digests of these images.
    const type = String.raw`application/vnd\.oci\.image\.`
    for (const shown of [
      /^fetching sha256:[0-9a-f]{8}\.\.\. application\/vnd\.docker\.distribution\.manifest\.v2\+json$/,
      /^fetching sha256:[0-9a-f]{8}\.\.\. application\/vnd\.docker\.container\.image\.v1\+json$/,
      ...['index', 'manifest', 'config'].map(
        kind => new RegExp(`^fetching sha256:[0-9a-f]{8}\\.\\.\\. ${type}${kind}\\.v1\\+json$`),
      ),
      /hello$/,
      /^127\.0\.0\.1\tlocalhost$/,
      /^192\.0\.2\.1\texample\.com$/,
      /^nameserver 192\.0\.2\.53$/,
      /^\/\.stargz-snapshotter\/sha256:[0-9a-f]{64}\.json$/,
      /^\{"digest":"sha256:[0-9a-f]{64}","size":\d+,"fetchedSize":\d+,"fetchedPercent":[\d.]+\}$/,
      /^extra image: .*\/ubuntu:22\.04-ex-esgztoc$/,
      /^stargz on \/.*\/snapshotter\/snapshots\/\d+\/fs type fuse\./,
      /^"containerd\.io\/snapshot\/stargz\/toc\.digest":"sha256:[0-9a-f]{64}"$/,
      /^bafkrei[a-z2-7]{52}$/,
    ]) {
      expect(lines.filter(line => shown.test(line)).length, `${shown}\n${output}`).toBeGreaterThan(0)
    }
    expect(lines.filter(line => /Hello, World!$/.test(line) && !line.startsWith('#'))).toHaveLength(2)
  })
})
