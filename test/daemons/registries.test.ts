// How the daemon reaches registries: every setting of its configuration, seen by the registry that is asked.

import {mkdirSync, rmSync, writeFileSync} from 'node:fs'
import {readFile} from 'node:fs/promises'
import {join} from 'node:path'
import {create, toBinary} from '@bufbuild/protobuf'
import * as grpc from '@grpc/grpc-js'
import {beforeAll, expect, it, onTestFinished} from 'vitest'
import {PullImageRequestSchema} from '../../src/daemons/snapshotter/proto/image_service_pb.ts'
import {openGrpcChannel} from '../../src/lib/containerd/grpc.ts'
import {Snapshots} from '../../src/lib/containerd/proto/snapshots_pb.ts'
import {startCluster} from '../kubernetes/fake-cluster.ts'
import {makeCertificate} from '../support/certificate.ts'
import {
  type FaultyRegistry,
  type FaultyRegistryOptions,
  startFaultyRegistry,
} from '../support/faulty-registry.ts'
import {buildBlob} from '../support/layers.ts'
import {describeWith} from '../support/requires.ts'
import {tarOf} from '../support/sample-image.ts'
import {snapshotterDirectory, startSnapshotter, type TestSnapshotter} from '../support/snapshotter.ts'

const PASSWORD = {username: 'alice', password: 'secret'}
const BASIC = {kind: 'basic', ...PASSWORD} as const
const AUTH = {auth: Buffer.from('alice:secret').toString('base64')}

let layer: Awaited<ReturnType<typeof buildBlob>>
beforeAll(async () => {
  layer = await buildBlob(tarOf({hello: 'hello\n'}))
})

/** A registry with the layer in `app`. */
async function startRegistry(options: FaultyRegistryOptions = {}): Promise<FaultyRegistry> {
  const registry = await startFaultyRegistry(options)
  onTestFinished(() => registry[Symbol.asyncDispose]())
  registry.addBlob('app', layer.bytes)
  return registry
}

interface StartOptions {
  /** Also the home of the daemon's user. */
  readonly directory?: string
  /** 0 unless said, so that what fails fails soon. */
  readonly retries?: number
}

async function start(config: string, {retries = 0, ...options}: StartOptions = {}): Promise<TestSnapshotter> {
  const snapshotter = await startSnapshotter({
    config: `[blob]\nmax_retries = ${retries}\n${config}`,
    ...options,
  })
  onTestFinished(() => snapshotter[Symbol.asyncDispose]())
  return snapshotter
}

/** Prepares the layer as containerd does, and resolves to what its file holds, or to why it is not lazy. */
async function pull(
  snapshotter: TestSnapshotter,
  host: string,
  target = `layer-${crypto.randomUUID()}`,
): Promise<string> {
  const channel = openGrpcChannel(snapshotter.address)
  const labels = {
    'containerd.io/snapshot.ref': target,
    'containerd.io/snapshot/remote/stargz.reference': `${host}/app:1`,
    'containerd.io/snapshot/remote/stargz.digest': layer.descriptor.digest,
    'containerd.io/snapshot/stargz/toc.digest': layer.tocDigest,
  }
  try {
    const failure = await channel
      .unary(Snapshots.method.prepare, {key: `${target}-key`, labels}, {headers: {}})
      .then(
        () => undefined,
        error => error,
      )
    if (failure === undefined) return String(snapshotter.log().findLast(({error}) => error)!.error)
    expect(failure.code).toBe(grpc.status.ALREADY_EXISTS)
    return await readHello(snapshotter, target)
  } finally {
    channel.close()
  }
}

/** What the file holds for a container on the layer `target`; rejects with gRPC's failure when there is no such layer. */
async function readHello({address}: TestSnapshotter, target: string): Promise<string> {
  const channel = openGrpcChannel(address)
  try {
    const key = `${target}-${crypto.randomUUID()}`
    const {mounts} = await channel.unary(Snapshots.method.view, {key, parent: target}, {headers: {}})
    // Not readFileSync: the registry that is read from is in this process.
    return await readFile(join(mounts[0]!.source, 'hello'), 'utf8')
  } finally {
    channel.close()
  }
}

describeWith(['root'], 'credentials of the daemon', () => {
  it('come from docker login, also from one that happens while it runs', async () => {
    const registry = await startRegistry({auth: BASIC})
    const snapshotter = await start('')
    expect(await pull(snapshotter, registry.host)).toMatch(/401|credentials|log in/i)
    writeFileSync(
      join(snapshotter.directory, 'config.json'),
      JSON.stringify({auths: {[registry.host]: AUTH}}),
    )
    expect(await pull(snapshotter, registry.host)).toBe('hello\n')
  })

  it('come from the secrets of a cluster', async () => {
    const registry = await startRegistry({auth: BASIC})
    const cluster = await startCluster()
    cluster.set('default/pull', {[registry.host]: AUTH})
    const snapshotter = await start(
      `[kubeconfig_keychain]\nenable_keychain = true\nkubeconfig_path = "${cluster.kubeconfig}"\n`,
    )
    await cluster.watched()
    expect(await pull(snapshotter, registry.host)).toBe('hello\n')
  })

  it('come from what the kubelet sends with a pull', async () => {
    const registry = await startRegistry({auth: BASIC})
    const directory = await snapshotterDirectory()
    const snapshotter = await start(
      `[cri_keychain]\nenable_keychain = true\nimage_service_path = "${directory}/none.sock"\n`,
      {directory},
    )
    const image = {image: `${registry.host}/app:1`}
    await sendPullImage(
      snapshotter.address,
      toBinary(PullImageRequestSchema, create(PullImageRequestSchema, {image, auth: PASSWORD})),
    )
    expect(await pull(snapshotter, registry.host)).toBe('hello\n')
  })

  it('that cannot be read keep nobody from a registry that wants none', async () => {
    const registry = await startRegistry()
    const snapshotter = await start('')
    writeFileSync(join(snapshotter.directory, 'config.json'), '{"auths": ')
    expect(await pull(snapshotter, registry.host)).toBe('hello\n')
  })
})

describeWith(['root'], 'mirrors of the daemon', () => {
  const mirrorOf = (origin: string, mirror: string, more = '') =>
    `[[resolver.host."${origin}".mirrors]]\nhost = "${mirror}"\n${more}`

  it('are asked first, with their headers, and the origin not at all', async () => {
    const [origin, mirror] = [await startRegistry(), await startRegistry()]
    const snapshotter = await start(
      mirrorOf(origin.host, mirror.host, 'insecure = true\nheader = {"x-key" = ["a", "b"]}\n'),
    )
    expect(await pull(snapshotter, origin.host)).toBe('hello\n')
    expect(mirror.requests[0]!.headers['x-key']).toBe('a, b')
    expect(new URL(mirror.requests[0]!.url, mirror.url).searchParams.get('ns')).toBe(origin.host)
    expect(origin.requests).toHaveLength(0)
  })

  it('that are down make way for the origin', async () => {
    const origin = await startRegistry()
    const snapshotter = await start(mirrorOf(origin.host, '127.0.0.1:1'))
    expect(await pull(snapshotter, origin.host)).toBe('hello\n')
  })

  it('that answer too late make way for the origin', async () => {
    const [origin, mirror] = [await startRegistry(), await startRegistry()]
    mirror.inject({}, {kind: 'stall', afterBytes: 0}, 100)
    const snapshotter = await start(mirrorOf(origin.host, mirror.host, 'request_timeout_sec = 1\n'), {
      retries: 2,
    })
    expect(await pull(snapshotter, origin.host)).toBe('hello\n')
    expect(mirror.requests.length).toBeGreaterThan(0)
  })

  it('may be all that there is, and when they fail, the reason is told', async () => {
    const mirror = await startRegistry()
    const snapshotter = await start(mirrorOf('registry.invalid', mirror.host))
    expect(await pull(snapshotter, 'registry.invalid')).toBe('hello\n')
  })

  it('both down: the layer is not lazy, and the log says why', async () => {
    const snapshotter = await start(mirrorOf('127.0.0.1:2', '127.0.0.1:1'))
    expect(await pull(snapshotter, '127.0.0.1:2')).toMatch(/127\.0\.0\.1:2/)
  })
})

describeWith(['root'], 'a daemon that lost its cache while the registry was down', () => {
  it('starts where that is allowed, and has the layer when the registry is back', async () => {
    const registry = await startRegistry()
    const snapshotter = await start('[snapshotter]\nallow_invalid_mounts_on_restart = true\n')
    expect(await pull(snapshotter, registry.host, 'layer')).toBe('hello\n')
    await snapshotter.stop('SIGINT')
    rmSync(join(snapshotter.directory, 'root/stargz/layers'), {recursive: true})
    registry.inject({}, {kind: 'status', status: 500}, 1000)
    await snapshotter.start()
    await expect(readHello(snapshotter, 'layer')).rejects.toMatchObject({code: grpc.status.UNAVAILABLE})
    registry.heal()
    expect(await readHello(snapshotter, 'layer')).toBe('hello\n')
  })
})

describeWith(['root', 'openssl'], 'hosts.toml for the daemon', () => {
  it('gives hosts certificates, and mirrors', async () => {
    const directory = await snapshotterDirectory()
    const {cert, key, certFile} = await makeCertificate(directory)
    const registry = await startRegistry({tls: {cert, key}})
    mkdirSync(join(directory, 'certs.d', registry.host), {recursive: true})
    writeFileSync(
      join(directory, 'certs.d', registry.host, 'hosts.toml'),
      `server = "https://${registry.host}"\nca = "${certFile}"\n`,
    )
    const snapshotter = await start(`[resolver]\nconfig_path = "${directory}/certs.d"\n`, {directory})
    expect(await pull(snapshotter, registry.host)).toBe('hello\n')
  })
})

/** Whether the image service is there does not matter: the credentials have passed by. */
async function sendPullImage(address: string, bytes: Uint8Array): Promise<void> {
  const client = new grpc.Client(`unix:${address}`, grpc.credentials.createInsecure())
  const same = (message: Buffer) => message
  await new Promise<void>(resolve => {
    const path = '/runtime.v1.ImageService/PullImage'
    client.makeUnaryRequest(path, same, same, Buffer.from(bytes), () => resolve())
  })
  client.close()
}
