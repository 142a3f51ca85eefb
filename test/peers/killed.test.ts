// The program, ended in the middle of its work: what is visible is whole, what is not is swept, and doing it again comes to
// the same image.

import {once} from 'node:events'
import {mkdir, mkdtemp, readdir, readFile, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {gzipSync} from 'node:zlib'
import {afterAll, afterEach, beforeAll, beforeEach, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {createLayoutTarget} from '../../src/lib/layout/oci-directory.ts'
import {OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST} from '../../src/lib/oci/media-type.ts'
import {createUser, type Running, type User} from '../support/ctr-remote.ts'
import {type FaultyRegistry, startFaultyRegistry} from '../support/faulty-registry.ts'
import {createRandom} from '../support/random.ts'
import {describeWith} from '../support/requires.ts'
import {writeShellImage} from '../support/shell-image.ts'
import {archive, member} from '../support/tar.ts'

let temporary: string
let user: User

beforeEach(async () => {
  temporary = await mkdtemp(join(tmpdir(), 'ctr-remote-killed-'))
  await mkdir(join(temporary, 'tmp'))
  // What the program leaves in a temporary directory is seen there.
  user = await createUser({TMPDIR: join(temporary, 'tmp')})
})
afterEach(async () => {
  await user[Symbol.asyncDispose]()
  await rm(temporary, {recursive: true, force: true})
})

/** Ends the program as a power cut would, as soon as `moment` has come. */
async function killAt(moment: Promise<void>, {child, finished}: Running): Promise<void> {
  const early = finished.then(({stderr}) => {
    throw new Error(`It ended by itself: ${stderr}`)
  })
  await Promise.race([moment, early])
  const gone = once(child, 'close')
  child.kill('SIGKILL')
  await gone
}

async function succeed(...argv: readonly string[]): Promise<string> {
  const {exitCode, stdout, stderr} = await user.run(...argv)
  expect(exitCode, `${argv.join(' ')}: ${stderr}`).toBe(0)
  return stdout.trim()
}

/** Files of the user's store that are not yet anything. */
async function stagedFiles(): Promise<string[]> {
  const names = await readdir(join(user.home, '.local/share/ctr-remote/images'), {recursive: true}).catch(
    () => [],
  )
  return names.filter(name => /(^|\/)ingest\/./.test(name))
}

describeWith([], 'a conversion that is killed', () => {
  let registry: FaultyRegistry
  let source: string

  beforeAll(async () => {
    registry = await startFaultyRegistry()
    // Noise, so that a layer comes in many pieces.
    const random = createRandom(3)
    const tars = ['a', 'b'].map(name =>
      archive(
        ...Array.from({length: 4}, (_, index) => {
          const body = Uint8Array.from({length: 300_000}, () => random(256))
          return member({name: `${name}${index}`}, body)
        }),
      ),
    )
    const layers = tars.map(tar => registry.addBlob('app', gzipSync(tar, {level: 1}), OCI_LAYER_GZIP))
    const rootfs = {type: 'layers', diff_ids: tars.map(digestOf)}
    const config = Buffer.from(JSON.stringify({architecture: 'amd64', os: 'linux', rootfs}))
    const manifest = {
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: registry.addBlob('app', config, OCI_CONFIG),
      layers,
    }
    registry.addManifest('app', '1', manifest)
    source = `docker://${registry.host}/app:1`
  })
  afterAll(() => registry?.[Symbol.asyncDispose]())
  afterEach(() => registry.heal())

  const convert = (target: string) => [
    'image',
    'convert',
    '--all-platforms',
    '--estargz',
    '--oci',
    source,
    target,
  ]

  /** Resolves when the registry has answered `count` requests more than now that match. */
  async function requested(method: string, url: RegExp, count: number): Promise<void> {
    const seen = () =>
      registry.requests.filter(request => request.method === method && url.test(request.url)).length
    const before = seen()
    await expect.poll(seen, {interval: 5, timeout: 20_000}).toBeGreaterThanOrEqual(before + count)
  }

  // The config is asked for first, then both layers.
  it.each([
    ['before the config comes in', 0, 1],
    ['while layers come in', 200_000, 3],
    ['when most of the layers is there', 1_100_000, 3],
  ])(
    '%s leaves nothing visible, and comes to the same image when it is done again',
    async (_, afterBytes, requests) => {
      const expected = (await createUserAnd(other => other.run(...convert('expected:1')))).stdout.trim()
      registry.inject({method: 'GET', url: /blobs/}, {kind: 'stall', afterBytes}, 9)
      const arrived = requested('GET', /blobs/, requests)
      const running = user.start(...convert('app:esgz'))
      await killAt(arrived, running)
      registry.heal()
      expect(await succeed('image', 'ls', '-q')).toBe('')
      expect(await succeed(...convert('app:esgz'))).toBe(expected)
      await succeed('image', 'verify', 'app:esgz')
      expect(await stagedFiles()).toEqual([])
      expect(await readdir(join(temporary, 'tmp'))).toEqual([])
    },
  )

  it('while it pushes leaves no tag, and pushes the same image when it is done again', async () => {
    const target = `docker://${registry.host}/app:esgz`
    registry.inject({method: 'PUT', url: /uploads/}, {kind: 'stall', afterBytes: 100_000}, 9)
    const arrived = requested('PUT', /uploads/, 1)
    const running = user.start(...convert(target))
    await killAt(arrived, running)
    registry.heal()
    expect(registry.manifest('app', 'esgz')).toBeUndefined()
    const digest = await succeed(...convert(target))
    expect(digestOf(registry.manifest('app', 'esgz')!)).toBe(digest)
    await succeed('image', 'verify', target)
  })

  it('over an older image leaves that as it was', async () => {
    await succeed('image', 'convert', '--all-platforms', '--uncompress', source, 'app:esgz')
    const before = await succeed('image', 'ls')
    registry.inject({method: 'GET', url: /blobs/}, {kind: 'stall', afterBytes: 200_000}, 9)
    const arrived = requested('GET', /blobs/, 3)
    const running = user.start(...convert('app:esgz'))
    await killAt(arrived, running)
    registry.heal()
    expect(await succeed('image', 'ls')).toBe(before)
    await succeed('image', 'export', '--all-platforms', join(temporary, 'image.tar'), 'app:esgz')
  })

  async function createUserAnd<T>(work: (user: User) => Promise<T>): Promise<T> {
    await using other = await createUser()
    return await work(other)
  }
})

describeWith(['root', 'runc'], 'Ctrl-C while a workload is watched', () => {
  let layout: string

  beforeEach(async () => {
    layout = join(temporary, 'source')
    await using target = await createLayoutTarget({path: layout, tag: 'latest'})
    await target.publish(await writeShellImage(target.content))
  })

  /** Commands of all processes of this machine. */
  async function commandLines(): Promise<string[]> {
    const pids = (await readdir('/proc')).filter(name => /^\d+$/.test(name))
    return Promise.all(pids.map(pid => readFile(`/proc/${pid}/cmdline`, 'latin1').catch(() => '')))
  }

  it.each(['SIGINT', 'SIGTERM'] as const)('by %s leaves nothing of it', async signal => {
    // Found again among all processes by what it is told to print.
    const mark = `watched-${process.pid}-${signal}`
    const script = `trap "" TERM INT; echo ${mark}; while true; do sleep 0.1; done`
    const running = user.start(
      ...['image', 'optimize', '--oci', '--period', '600'],
      ...['--entrypoint', JSON.stringify(['/bin/sh', '-c', script]), `oci:${layout}`, 'app:esgz'],
    )
    try {
      await running.line('stderr', new RegExp(`^${mark}`))
      expect((await commandLines()).some(line => line.includes(mark) && !line.includes('optimize'))).toBe(
        true,
      )
    } finally {
      running.child.kill(signal)
    }
    const {exitCode} = await running.finished
    expect(exitCode).toBe(signal === 'SIGINT' ? 130 : 143)
    expect((await commandLines()).filter(line => line.includes(mark))).toEqual([])
    expect(await readFile('/proc/self/mountinfo', 'utf8')).not.toContain(temporary)
    expect(await readdir(join(temporary, 'tmp'))).toEqual([])
    expect(await stagedFiles()).toEqual([])
    expect(await succeed('image', 'ls', '-q')).toBe('')
  })
})
