// What a kubelet does: it pulls a private image through the snapshotter's socket, with the credentials in the request,
// and containerd's CRI gets lazy layers that the snapshotter can read.

import {create, fromBinary, toBinary} from '@bufbuild/protobuf'
import * as grpc from '@grpc/grpc-js'
import {expect, it, vi} from 'vitest'
import {
  ImageSpecSchema,
  PullImageRequestSchema,
} from '../../src/daemons/snapshotter/proto/image_service_pb.ts'
import {encodeJson} from '../../src/lib/oci/manifest.ts'
import {OCI_CONFIG, OCI_MANIFEST} from '../../src/lib/oci/media-type.ts'
import {hostPlatform} from '../../src/lib/oci/platform.ts'
import {CONTAINERDS, containerdAddress, containerdDirectory, startContainerd} from '../support/containerd.ts'
import {type FaultyRegistry, startFaultyRegistry} from '../support/faulty-registry.ts'
import {buildBlob} from '../support/layers.ts'
import {describeWith} from '../support/requires.ts'
import {tarOf} from '../support/sample-image.ts'
import {snapshotterAddress, snapshotterDirectory, startSnapshotter} from '../support/snapshotter.ts'

const PASSWORD = {username: 'alice', password: 'secret'}

/** An image of one lazy layer, `app:1`. */
async function addImage(registry: FaultyRegistry): Promise<void> {
  const layer = await buildBlob(tarOf({hello: 'hello\n'}))
  registry.addBlob('app', layer.bytes)
  const config = encodeJson({
    ...hostPlatform(),
    config: {Cmd: ['/hello']},
    rootfs: {type: 'layers', diff_ids: [layer.diffId]},
  })
  registry.addManifest('app', '1', {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: registry.addBlob('app', config, OCI_CONFIG),
    layers: [layer.descriptor],
  } as {mediaType: string})
}

/** The containerd configuration of both releases: they name the CRI's sections differently. */
const CRI_CONFIG = [
  `[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "stargz"
  disable_snapshot_annotations = false
`,
  `[plugins."io.containerd.cri.v1.images"]
  snapshotter = "stargz"
  disable_snapshot_annotations = false
  use_local_image_pull = true
`,
]

CONTAINERDS.forEach(({release, needs, programs}, index) => {
  describeWith(['root', ...needs], `a kubelet with ${release}`, () => {
    it('pulls a private image, whose layers are lazy', async () => {
      await using registry = await startFaultyRegistry({auth: {kind: 'basic', ...PASSWORD}})
      await addImage(registry)
      const directory = await snapshotterDirectory()
      const address = snapshotterAddress(directory)
      const containerds = await containerdDirectory()
      // Before containerd, as its unit is: containerd connects when it starts, and tells who comes while it waits to try again
      // that the snapshotter is not there.
      await using snapshotter = await startSnapshotter({
        directory,
        config: `[cri_keychain]\nenable_keychain = true\nimage_service_path = "${containerdAddress(containerds)}"\n`,
      })
      await using _containerd = await startContainerd({
        cri: true,
        directory: containerds,
        programs,
        config: `${CRI_CONFIG[index]}
[proxy_plugins.stargz]
  type = "snapshot"
  address = "${address}"
`,
      })
      const image = {image: `${registry.host}/app:1`}
      await untilInitialized(address)
      await expect(call(address, 'PullImage', {image})).rejects.toMatchObject({details: /40[13]|authoriz/i})
      const pulled = await call(address, 'PullImage', {image, auth: PASSWORD})
      expect(fromBinary(ImageSpecSchema, pulled).image).toMatch(/^sha256:/)
      const prepared = snapshotter.log().filter(line => 'remote-snapshot-prepared' in line)
      expect(prepared).toMatchObject([{'remote-snapshot-prepared': 'true'}])
      const own = registry.requests.filter(({headers}) =>
        headers['user-agent']?.startsWith('containerd-stargz-grpc/'),
      )
      expect(own.some(({headers}) => headers.authorization?.startsWith('Basic '))).toBe(true)
      await call(address, 'RemoveImage', {image})
    })
  })
})

/** containerd answers before its CRI is ready, and tells nobody when that is. */
async function untilInitialized(address: string): Promise<void> {
  await vi.waitFor(() => call(address, 'ListImages', {}), {timeout: 20_000, interval: 50})
}

/** A call of the image service; the answer as bytes. */
function call(
  address: string,
  method: 'ListImages' | 'PullImage' | 'RemoveImage',
  request: {image?: {image: string}; auth?: typeof PASSWORD},
): Promise<Buffer> {
  const client = new grpc.Client(`unix:${address}`, grpc.credentials.createInsecure())
  const bytes = Buffer.from(toBinary(PullImageRequestSchema, create(PullImageRequestSchema, request)))
  const same = (message: Buffer) => message
  return new Promise<Buffer>((resolve, reject) => {
    client.makeUnaryRequest(`/runtime.v1.ImageService/${method}`, same, same, bytes, (failure, answer) => {
      client.close()
      if (failure) reject(failure)
      else resolve(answer!)
    })
  })
}
