// dockerd with containerd's image store on our snapshotter, and BuildKit inside it: pulls, runs, builds on lazy images, pushes.

import {writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {afterAll, beforeAll, expect, it} from 'vitest'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {checkDocker} from '../../src/lib/node/check-docker.ts'
import type {RequestLogEntry} from '../../src/lib/registry-server/answer-request.ts'
import {type RunningRegistry, serveRegistry} from '../../src/lib/registry-server/serve-registry.ts'
import {DOCKER_NAMESPACE, startDockerd, type TestDockerd} from '../support/dockerd.ts'
import {newerPrograms} from '../support/newer-programs.ts'
import {describeWith} from '../support/requires.ts'
import {temporaryDirectory} from '../support/temporary.ts'
import {openStage, type Stage} from './lazy-stage.ts'

/** As docs/docker.md has it for builders. */
const CONFIG = 'no_background_fetch = true\n[snapshotter]\none_device = false\n'

describeWith(['root', 'newer-containerd', 'newer-docker'], 'Docker', () => {
  let stage: Stage
  let dockerd: TestDockerd
  let registry: RunningRegistry
  const requests: RequestLogEntry[] = []
  let base: string

  beforeAll(async () => {
    stage = await openStage({backend: 'auto', programs: newerPrograms('containerd'), config: CONFIG})
    dockerd = await startDockerd({containerd: stage.containerd.address})
    const store = await openLocalStore(join(stage.user.home, 'registry'))
    registry = await serveRegistry(store, {onRequest: entry => requests.push(entry)})
    base = `${registry.address}/app:esgz`
    await ctrRemote('image', 'convert', '--estargz', '--oci', `docker://${stage.plain}`, `docker://${base}`)
  })
  afterAll(async () => {
    await dockerd?.[Symbol.asyncDispose]()
    await registry?.[Symbol.asyncDispose]()
    await stage?.[Symbol.asyncDispose]()
  })

  async function ctrRemote(...argv: readonly string[]): Promise<string> {
    const {exitCode, stdout, stderr} = await stage.user.run(...argv)
    expect(exitCode, stderr).toBe(0)
    return stdout + stderr
  }

  /** Runs `work`; resolves to the bytes of the base's blobs that were read meanwhile: by ranges, and whole by Docker. */
  async function fetched(
    work: () => Promise<unknown>,
  ): Promise<{readonly lazily: number; readonly whole: number}> {
    const blobs = stage.lazyManifest.layers.map(({digest}) => digest)
    const first = requests.length
    await work()
    const read = requests
      .slice(first)
      .filter(({method, path}) => method === 'GET' && blobs.some(digest => path.includes(digest)))
    const sum = (entries: readonly RequestLogEntry[]) =>
      entries.reduce((total, {sentBytes}) => total + sentBytes, 0)
    return {
      lazily: sum(read.filter(({range}) => range !== undefined)),
      whole: sum(read.filter(({range}) => range === undefined)),
    }
  }

  const size = () => stage.lazyManifest.layers.reduce((sum, layer) => sum + layer.size, 0)

  /** Builds an image with one RUN on the lazy base. */
  async function build(command: string, output: string): Promise<string> {
    const directory = await temporaryDirectory()
    await writeFile(join(directory, 'Dockerfile'), `FROM ${base}\nRUN ${command}\n`)
    const flags = ['--progress=plain', '--network=none', '--output', output]
    return dockerd.docker('buildx', 'build', ...flags, directory)
  }

  async function expectNoneOfBase(): Promise<void> {
    const content = await stage.ctr(DOCKER_NAMESPACE, 'content', 'ls', '-q')
    for (const {digest} of stage.lazyManifest.layers) expect(content).not.toContain(digest)
  }

  it('is found to be lazy by node check', async () => {
    const options = {snapshotter: 'stargz', address: stage.containerd.address, docker: dockerd.client}
    expect(await checkDocker(options)).toEqual([
      {about: 'docker', level: 'ok', message: `Docker's images are in "stargz"`},
    ])
  })

  it('builds on a lazy image, two at once, and fetches what RUN reads', async () => {
    const read = await fetched(() =>
      Promise.all([
        build('cat /data/hello >/one', 'type=cacheonly'),
        build('cat /data/hello >/two', 'type=cacheonly'),
      ]),
    )
    expect(read.whole).toBe(0)
    expect(read.lazily).toBeGreaterThan(0)
    expect(read.lazily).toBeLessThan(size() / 4)
    await expectNoneOfBase()
    // What a RUN has written is in its upper directory: nobody compares whole trees.
    expect(dockerd.log()).not.toContain('failed to compute blob by overlay differ')
  })

  it('pushes what was built without the base, to where the base is', async () => {
    const name = `${registry.address}/app:pushed`
    const read = await fetched(() =>
      build('cat /data/hello >/pushed', `type=registry,name=${name},store=false`),
    )
    expect(read.whole).toBe(0)
    await expectNoneOfBase()
    const told = await ctrRemote(
      ...['image', 'convert', '--estargz', '--oci', `docker://${name}`, `docker://${name}-esgz`],
    )
    // BuildKit attests what it builds.
    expect(told).toMatch(/1 attestation left out, .*: sha256:[0-9a-f]{64}/)
    await ctrRemote('image', 'verify', `docker://${name}-esgz`)
  })

  it('builds on after the snapshotter was killed', async () => {
    await stage.snapshotter.stop('SIGKILL')
    await stage.snapshotter.start()
    // Which waits until containerd has found it again.
    await stage.ctrRemote(DOCKER_NAMESPACE, 'image', 'rpull', stage.lazy)
    const read = await fetched(() => build('cat /data/block >/killed', 'type=cacheonly'))
    expect(read.whole).toBe(0)
  })

  it('writes zstd, which becomes zstd:chunked and eStargz', async () => {
    const name = `${registry.address}/app:zstd`
    const output = `type=registry,name=${name},store=false,oci-mediatypes=true,compression=zstd`
    await build('cat /data/hello >/zstd', output)
    for (const flag of ['--estargz', '--zstdchunked']) {
      await ctrRemote('image', 'convert', flag, '--oci', `docker://${name}`, `docker://${name}${flag}`)
      await ctrRemote('image', 'verify', `docker://${name}${flag}`)
    }
  })

  it('pulls lazily, runs, and fetches the base only for its own store', async () => {
    const read = await fetched(async () => {
      await dockerd.docker('pull', base)
      expect(await dockerd.docker('run', '--rm', '--network=none', base)).toContain('hello')
    })
    expect(read.whole).toBe(0)
    expect(read.lazily).toBeLessThan(size() / 4)
    await expectNoneOfBase()
    // An image of its own is complete, in Docker's store as in any other.
    const stored = await fetched(() => build('cat /data/hello >/stored', 'type=docker,name=stored:1'))
    expect(stored.whole).toBe(size())
    const run = ['run', '--rm', '--network=none', 'stored:1', 'cat', '/stored']
    expect(await dockerd.docker(...run)).toContain('hello')
  })
})
