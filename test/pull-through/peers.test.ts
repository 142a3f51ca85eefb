// Other people's clients before a converting registry, and other people's registries behind it.

import {execFile} from 'node:child_process'
import {mkdir, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {promisify} from 'node:util'
import {expect, it} from 'vitest'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {tocDigestOf} from '../../src/lib/oci/annotations.ts'
import type {ImageManifest} from '../../src/lib/oci/manifest.ts'
import {createRegistryImageTarget} from '../../src/lib/registry/image.ts'
import {serveRegistry} from '../../src/lib/registry-server/serve-registry.ts'
import {busyboxLayer, runnableImage} from '../support/busybox-image.ts'
import {CONTAINERDS, stargzPlugin, startContainerd} from '../support/containerd.ts'
import {createUser} from '../support/ctr-remote.ts'
import {startDockerRegistry} from '../support/docker-registry.ts'
import type {FaultyRegistry} from '../support/faulty-registry.ts'
import {PODMANS, startPodman} from '../support/podman.ts'
import {describeWith} from '../support/requires.ts'
import {writeSampleImage} from '../support/sample-image.ts'
import {snapshotterAddress, snapshotterDirectory, startSnapshotter} from '../support/snapshotter.ts'
import {archive, member} from '../support/tar.ts'
import {temporaryDirectory} from '../support/temporary.ts'
import {ACCEPT, manifestOf, type Stage, startStage, startUpstream} from './support.ts'

const run = promisify(execFile)
const OWNER = {username: 'owner', password: 'secret'}
const CREDENTIALS = `${OWNER.username}:${OWNER.password}`

/** An image of a busybox and a text, of which a container prints the text. */
async function addRunnable(upstream: FaultyRegistry, repository: string): Promise<void> {
  const {content, manifest} = await runnableImage(
    [busyboxLayer(), archive(member({name: 'hello', mode: 0o644}, 'hello\n'))],
    {Env: ['PATH=/bin'], Cmd: ['cat', '/hello']},
  )
  for (const bytes of content.blobs.values()) upstream.addBlob(repository, bytes)
  upstream.addManifest(repository, '1', manifest)
}

/** A stage before a registry that wants credentials, where `app:1` is converted while a client waits. */
async function privateStage(): Promise<Stage> {
  const upstream = await startUpstream({auth: {kind: 'bearer', ...OWNER}})
  await addRunnable(upstream, 'app')
  return startStage([`lab=${upstream.host}`], {waitMs: 600_000})
}

function isLazy({layers}: ImageManifest): boolean {
  return layers.every(({annotations}) => tocDigestOf(annotations) !== undefined)
}

describeWith(['skopeo'], 'skopeo', () => {
  const skopeo = async (...argv: readonly string[]) => (await run('skopeo', argv)).stdout

  it('pulls what its user may read, and nothing else', async () => {
    const stage = await privateStage()
    const image = `docker://${stage.address}/lab/app:1`
    const inspect = ['inspect', '--raw', '--tls-verify=false']
    await expect(skopeo(...inspect, image)).rejects.toThrow(/unauthorized/i)
    await expect(skopeo(...inspect, '--creds', 'owner:wrong', image)).rejects.toThrow(
      /unauthorized|credentials/i,
    )
    expect(isLazy(JSON.parse(await skopeo(...inspect, '--creds', CREDENTIALS, image)))).toBe(true)
    const directory = await temporaryDirectory()
    await skopeo('copy', '--src-tls-verify=false', '--src-creds', CREDENTIALS, image, `oci:${directory}:1`)
    await expect(skopeo('copy', '--dest-tls-verify=false', `oci:${directory}:1`, image)).rejects.toThrow(
      /unauthorized|push/i,
    )
  })

  it('lists the tags of an upstream, and inspects an image of nobody in particular', async () => {
    await using store = await openLocalStore(await temporaryDirectory())
    await using upstream = await serveRegistry(store)
    await store.images.put('localhost/app:1', (await writeSampleImage(store.content)).root)
    const stage = await startStage([`lab=${upstream.address}`], {waitMs: 600_000})
    const image = `docker://${stage.address}/lab/app`
    const {Tags} = JSON.parse(await skopeo('list-tags', '--tls-verify=false', image))
    const {Name, Layers} = JSON.parse(await skopeo('inspect', '--tls-verify=false', `${image}:1`))
    expect([Tags, Name, Layers.length]).toEqual([['1'], `${stage.address}/lab/app`, 2])
  })
})

for (const {release, needs, programs} of PODMANS) {
  describeWith(['root', ...needs], release, () => {
    it('logs in, pulls and runs', async () => {
      const stage = await privateStage()
      await using podman = await startPodman({programs, insecure: [stage.address]})
      const image = `${stage.address}/lab/app:1`
      expect((await podman.attempt('pull', image)).exitCode).not.toBe(0)
      await podman.podman('login', '-u', OWNER.username, '-p', OWNER.password, stage.address)
      await podman.podman('pull', image)
      const command = ['run', '--rm', '--network=none', image]
      expect(await podman.podman(...command)).toBe('hello\n')
    })
  })
}

for (const {release, needs, programs} of CONTAINERDS) {
  describeWith(['root', ...needs], release, () => {
    it('pulls by its mirror form, with credentials, and what was converted when it is', async () => {
      const domain = 'registry.test'
      const upstream = await startUpstream({auth: {kind: 'bearer', ...OWNER}})
      await addRunnable(upstream, 'app')
      const mirror = await startStage([`${domain}=${upstream.host}`], {waitMs: 600_000})
      const hosts = await temporaryDirectory()
      await mkdir(join(hosts, domain))
      await writeFile(
        join(hosts, domain, 'hosts.toml'),
        `server = "http://127.0.0.1:1"\n[host."${mirror.url}"]\n  capabilities = ["pull", "resolve"]\n`,
      )
      await using containerd = await startContainerd({programs})
      const pull = ['images', 'pull', '--hosts-dir', hosts]
      const image = `${domain}/app:1`
      await expect(containerd.ctr(...pull, image)).rejects.toThrow()
      await containerd.ctr(...pull, '--user', CREDENTIALS, image)
      const headers = {...ACCEPT, authorization: `Basic ${Buffer.from(CREDENTIALS).toString('base64')}`}
      const answer = await mirror.send('GET', '/v2/app/manifests/1', {headers})
      const listed = await containerd.ctr('images', 'ls', `name==${image}`)
      expect(listed).toContain(String(answer.headers['docker-content-digest']))
      expect(isLazy(manifestOf(answer))).toBe(true)
    })
  })
}

describeWith(['root', 'containerd', 'ctr', 'runc'], 'our client and snapshotter', () => {
  it('pull lazily what was converted, and run it', async () => {
    const upstream = await startUpstream()
    await addRunnable(upstream, 'app')
    const stage = await startStage([`lab=${upstream.host}`], {waitMs: 600_000})
    await using user = await createUser()
    const directory = await snapshotterDirectory()
    await using _snapshotter = await startSnapshotter({directory})
    await using containerd = await startContainerd({config: stargzPlugin(snapshotterAddress(directory))})
    const namespace = `pull-through-${process.pid}`
    const remote = async (...argv: readonly string[]) => {
      const globals = ['--store', 'containerd', '-a', containerd.address, '-n', namespace]
      const {exitCode, stdout, stderr} = await user.run(...globals, ...argv)
      expect(exitCode, `${argv.join(' ')}: ${stderr}`).toBe(0)
      return stdout
    }
    const image = `${stage.address}/lab/app:1`
    await remote('image', 'rpull', image)
    const {layers} = manifestOf(await stage.send('GET', '/v2/lab/app/manifests/1', {headers: ACCEPT}))
    const content = await containerd.ctr('-n', namespace, 'content', 'ls', '-q')
    for (const {digest} of layers) expect(content).not.toContain(digest)
    expect(await remote('run', '--rm', '--snapshotter=stargz', image, `${namespace}-a`)).toBe('hello\n')
    await remote('image', 'rm', '--sync', image)
  })
})

describeWith(['docker-registry'], "CNCF Distribution's registry as the upstream", () => {
  it('is read as it likes', async () => {
    await using upstream = await startDockerRegistry()
    await using target = createRegistryImageTarget(`${upstream.host}/app:1`)
    const {root} = await writeSampleImage(target.content)
    await target.publish(root)
    const stage = await startStage([upstream.host], {waitMs: 600_000})
    const answer = await stage.send('GET', '/v2/app/manifests/1', {headers: ACCEPT})
    expect(isLazy(manifestOf(answer))).toBe(true)
    const tags = await stage.send('GET', '/v2/app/tags/list?n=1')
    expect(tags.json()).toEqual({name: 'app', tags: ['1']})
    const source = await stage.send('GET', `/v2/app/manifests/${root.digest}`, {headers: ACCEPT})
    const [layer] = manifestOf(source).layers
    const range = await stage.send('GET', `/v2/app/blobs/${layer!.digest}`, {headers: {range: 'bytes=-4'}})
    expect([range.status, range.body.length]).toEqual([206, 4])
  })
})
