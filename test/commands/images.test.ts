// Images through the commands: from a registry into the store, converted, and out again by every way there is.

import {spawn} from 'node:child_process'
import {mkdtemp, readdir, readFile, rm, writeFile} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {text} from 'node:stream/consumers'
import {stripVTControlCharacters} from 'node:util'
import {afterAll, beforeAll, describe, expect, it} from 'vitest'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {type RunningRegistry, serveRegistry} from '../../src/lib/registry-server/serve-registry.ts'
import {CTR_REMOTE, createUser, type User} from '../support/ctr-remote.ts'
import {startFaultyRegistry} from '../support/faulty-registry.ts'
import {PATIENTLY} from '../support/patience.ts'
import {describeWith} from '../support/requires.ts'
import {writeSampleImage, writeSampleIndex} from '../support/sample-image.ts'

const DIGEST = /^sha256:[0-9a-f]{64}$/
const layers = [
  {'bin/app': 'app\n', 'etc/config': 'config\n', 'var/data': 'x'.repeat(50_000)},
  {'etc/other': 'other\n'},
]

let user: User
let directory: string
let registry: RunningRegistry
/** `HOST:PORT` of a registry with `sample:1` (amd64), `multi:1` (amd64 and arm64) and `docker:1` (Docker schema 2). */
let host: string

beforeAll(async () => {
  user = await createUser()
  directory = await mkdtemp(join(tmpdir(), 'ctr-remote-images-'))
  const store = await openLocalStore(directory)
  const lease = await store.lease()
  const sample = await writeSampleImage(store.content, {layers})
  const multi = await writeSampleIndex(store.content, ['amd64', 'arm64'])
  const docker = await writeSampleImage(store.content, {layers, family: 'docker'})
  await store.images.put('localhost/sample:1', sample.root)
  await store.images.put('localhost/multi:1', multi.root)
  await store.images.put('localhost/docker:1', docker.root)
  await lease[Symbol.asyncDispose]()
  registry = await serveRegistry(store)
  host = registry.address
})
afterAll(async () => {
  await registry?.[Symbol.asyncDispose]()
  await user?.[Symbol.asyncDispose]()
  await rm(directory, {recursive: true, force: true})
})

/** Runs a command that must succeed; resolves to its stdout without the last newline. */
async function ok(...argv: readonly string[]): Promise<string> {
  const {exitCode, stdout, stderr} = await user.run(...argv)
  expect(exitCode, `${argv.join(' ')}: ${stderr}`).toBe(0)
  return stdout.trimEnd()
}

async function fails(exitCode: number, ...argv: readonly string[]): Promise<string> {
  const finished = await user.run(...argv)
  expect(finished.exitCode, finished.stderr).toBe(exitCode)
  expect(finished.stdout).toBe('')
  return finished.stderr
}

async function listImages(): Promise<{name: string; digest: string; platforms: string[]; labels: object}[]> {
  return JSON.parse(await ok('image', 'ls', '--json'))
}

describe('pull', () => {
  it('prints the digest on stdout, and progress on stderr only', async () => {
    const {exitCode, stdout, stderr} = await user.run('image', 'pull', `${host}/sample:1`)
    expect(exitCode).toBe(0)
    expect(stdout.trimEnd()).toMatch(DIGEST)
    expect(stderr).toMatch(/layer 1\/2 .* done/)
  })

  it('-q says nothing but the digest', async () => {
    const {stdout, stderr} = await user.run('images', 'pull', '-q', `docker://${host}/sample:1`)
    expect(stdout.trimEnd()).toMatch(DIGEST)
    expect(stderr).toBe('')
  })

  it("takes this machine's platform of an index, and keeps its digest", async () => {
    const digest = await ok('image', 'pull', '-q', '--platform', 'linux/arm64', `${host}/multi:1`)
    expect(await listImages()).toContainEqual(
      expect.objectContaining({name: `${host}/multi:1`, digest, platforms: ['linux/arm64']}),
    )
    expect(await ok('image', 'pull', '-q', '-all-platforms', `${host}/multi:1`)).toBe(digest)
    expect(await listImages()).toContainEqual(
      expect.objectContaining({digest, platforms: ['linux/amd64', 'linux/arm64']}),
    )
  })

  it('labels the image', async () => {
    await ok('image', 'pull', '-q', '--label', 'a=b', '--label', 'c=d', `${host}/docker:1`)
    expect(await listImages()).toContainEqual(
      expect.objectContaining({name: `${host}/docker:1`, labels: {a: 'b', c: 'd'}}),
    )
  })

  it('of what is not there exits 3, of a registry that is not there 8', async () => {
    expect(await fails(3, 'image', 'pull', '-q', `${host}/missing:1`)).toMatch(/missing/)
    expect(await fails(3, 'image', 'pull', '-q', '--platform', 'linux/s390x', `${host}/multi:1`)).toMatch(
      /linux\/s390x/,
    )
    expect(await fails(8, 'image', 'pull', '-q', '127.0.0.1:1/x:1')).toMatch(/127\.0\.0\.1:1/)
  })

  it('traces requests on stderr, one line each', async () => {
    const {stderr} = await user.run('image', 'pull', '-q', '--http-trace', `${host}/sample:1`)
    expect(stderr).toMatch(/^GET http:.*\/v2\/sample\/manifests\/1 200 /m)
  })
})

describe('names', () => {
  it('tag adds names, and takes one that is in use only with --force', async () => {
    await ok('image', 'pull', '-q', `${host}/sample:1`)
    expect(await ok('image', 'tag', `${host}/sample:1`, 'one', 'example.com/two:2')).toBe(
      'docker.io/library/one:latest\nexample.com/two:2',
    )
    await ok('image', 'pull', '-q', `${host}/docker:1`)
    expect(await fails(4, 'image', 'tag', `${host}/docker:1`, 'one')).toMatch(/--force/)
    await ok('image', 'tag', '--force', `${host}/docker:1`, 'one')
    await ok('image', 'rm', 'one', 'example.com/two:2')
  })

  it('ls filters by name, and lists names alone with -q', async () => {
    await ok('image', 'pull', '-q', `${host}/sample:1`)
    await ok('image', 'tag', '--force', `${host}/sample:1`, 'listed:1')
    expect(await ok('image', 'ls', '-q', 'listed')).toBe('docker.io/library/listed:1')
    const [header, line] = (await ok('image', 'ls', 'listed')).split('\n')
    expect(header).toMatch(/^REF +TYPE +DIGEST +SIZE +PLATFORMS +LABELS *$/)
    expect(line).toMatch(
      /^docker\.io\/library\/listed:1 .*manifest\.v1\+json sha256:\S+ \S+ KiB +linux\/amd64 -/,
    )
  })

  it('rm --sync leaves nothing behind that no other image needs', async () => {
    await using other = await createUser()
    const blobs = join(other.home, '.local/share/ctr-remote/images/blobs/sha256')
    expect((await other.run('image', 'pull', '-q', `${host}/sample:1`)).exitCode).toBe(0)
    expect((await other.run('image', 'pull', '-q', `${host}/docker:1`)).exitCode).toBe(0)
    expect((await other.run('image', 'rm', '--sync', `${host}/docker:1`)).exitCode).toBe(0)
    // manifest, config and two layers
    expect(await readdir(blobs)).toHaveLength(4)
    expect((await other.run('image', 'rm', '--sync', `${host}/sample:1`)).stdout).toBe(`${host}/sample:1\n`)
    expect(await readdir(blobs)).toEqual([])
  })

  it('rm collects without --sync, and one name that is not there does not keep the others', async () => {
    await using other = await createUser()
    const blobs = join(other.home, '.local/share/ctr-remote/images/blobs/sha256')
    expect((await other.run('image', 'pull', '-q', `${host}/sample:1`)).exitCode).toBe(0)
    expect((await other.run('image', 'tag', `${host}/sample:1`, 'two:1')).exitCode).toBe(0)
    expect((await other.run('image', 'rm', `${host}/sample:1`)).exitCode).toBe(0)
    expect(await readdir(blobs)).toHaveLength(4)
    expect(await other.run('image', 'rm', 'no:1', 'two:1', 'nor:1')).toMatchObject({
      exitCode: 3,
      stdout: 'docker.io/library/two:1\n',
      stderr: expect.stringMatching(/^ctr-remote: Cannot .*"no:1".*; Cannot .*"nor:1".*\n$/),
    })
    expect(await readdir(blobs)).toEqual([])
  })

  it('rm of what is not there exits 3', async () => {
    expect(await fails(3, 'image', 'rm', 'nothing')).toMatch(/"nothing"/)
  })
})

describe('inspect', () => {
  it('draws an image, wherever it is', async () => {
    const drawn = await ok('image', 'inspect', `docker://${host}/multi:1`)
    expect(drawn).toMatch(/^docker:\/\/.*\n└── application\/vnd\.oci\.image\.index\.v1\+json sha256:/)
    expect(drawn).toContain('linux/arm64')
  })

  it('shows people as much of a digest as tells one from another, and all of it when asked', async () => {
    const location = `docker://${host}/multi:1`
    const {target} = JSON.parse(await ok('image', 'inspect', '--json', location))
    const drawn = await ok('image', 'inspect', location)
    expect(drawn).toContain(` ${target.digest.slice(0, 'sha256:'.length + 12)} `)
    expect(drawn).not.toMatch(/[0-9a-f]{13}/)
    for (const line of drawn.split('\n')) expect(line.length).toBeLessThanOrEqual(110)
    expect(await ok('image', 'inspect', '--no-trunc', location)).toContain(` ${target.digest} `)
  })

  it('tells programs everything with --json', async () => {
    const {target, manifests} = JSON.parse(await ok('image', 'inspect', '--json', `docker://${host}/multi:1`))
    expect(target.digest).toMatch(DIGEST)
    expect(manifests.map((manifest: {platform: string}) => manifest.platform)).toEqual([
      'linux/amd64',
      'linux/arm64',
    ])
    expect(manifests[0].layers).toHaveLength(1)
  })
})

describe('convert', () => {
  it('makes every layer eStargz, prints the digest, and gives the same bytes again', async () => {
    await ok('image', 'pull', '-q', `${host}/sample:1`)
    const digest = await ok('image', 'convert', '-q', '--estargz', '--oci', `${host}/sample:1`, 'sample:esgz')
    expect(digest).toMatch(DIGEST)
    const {target, manifests} = JSON.parse(await ok('image', 'inspect', '--json', 'sample:esgz'))
    expect(target.digest).toBe(digest)
    for (const layer of manifests[0].layers) {
      expect(layer.annotations['containerd.io/snapshot/stargz/toc.digest']).toMatch(DIGEST)
    }
    await using other = await createUser()
    const again = await other.run(
      'image',
      'convert',
      '-q',
      '--estargz',
      '--oci',
      `docker://${host}/sample:1`,
      `oci:${other.home}/out:esgz`,
    )
    expect(again.stdout.trimEnd()).toBe(digest)
  })

  it('goes from registry to registry with nothing in between', async () => {
    const digest = await ok(
      'image',
      'convert',
      '-q',
      '--estargz',
      '--oci',
      '--all-platforms',
      `docker://${host}/multi:1`,
      `docker://${host}/multi:esgz`,
    )
    const {manifests} = JSON.parse(await ok('image', 'inspect', '--json', `docker://${host}/multi@${digest}`))
    expect(manifests.map((manifest: {platform: string}) => manifest.platform)).toEqual([
      'linux/amd64',
      'linux/arm64',
    ])
  })

  it('puts the files of a record first, and tells of those that are nowhere', async () => {
    const record = join(user.home, 'record.json')
    const paths = ['var/data', 'etc/other', 'not/there']
    await writeFile(record, paths.map(path => `${JSON.stringify({path})}\n`).join(''))
    const {stdout, stderr} = await user.run(
      'image',
      'convert',
      '-q',
      '--estargz',
      '--oci',
      '--estargz-record-in',
      record,
      '--json',
      `docker://${host}/sample:1`,
      'sample:record',
    )
    const report = JSON.parse(stdout)
    expect(report.layers.map((layer: {prioritizedFiles: number}) => layer.prioritizedFiles)).toEqual([1, 1])
    expect(report.missing).toEqual(['not/there'])
    expect(stderr).toContain('"not/there"')
  })

  it("prints nerdctl's JSON with --format json", async () => {
    const stdout = await ok(
      'image',
      'convert',
      '-q',
      '--estargz',
      '--oci',
      '--format',
      'json',
      `docker://${host}/sample:1`,
      'sample:json',
    )
    expect(stdout).toMatch(
      /^\{\n {4}"Image": "docker\.io\/library\/sample:json@sha256:[0-9a-f]{64}",\n {4}"ExtraImages": null\n\}$/,
    )
  })

  it('warns where the reference warns, and says that a gzip helper is not needed', async () => {
    const {exitCode, stderr} = await user.run(
      'image',
      'convert',
      '-q',
      '--estargz',
      '--GH',
      'pigz',
      `docker://${host}/docker:1`,
      'docker:esgz',
    )
    expect(exitCode).toBe(0)
    expect(stderr).toMatch(/^note: .*pigz.* not needed/m)
    expect(stderr).toMatch(/^warning: .*--oci/m)
  })

  const conflict = (flags: string, message: RegExp, exitCode = 2) =>
    it(`${flags || 'no layer converter'} is refused`, async () => {
      const words = flags.split(' ').filter(Boolean)
      expect(await fails(exitCode, 'image', 'convert', ...words, 'a:1', 'b:1')).toMatch(message)
    })
  conflict('', /specify layer converter/)
  conflict('--oci', /specify layer converter/)
  conflict('--estargz --uncompress', /lead to conflict/)
  conflict('--estargz --zstdchunked --oci', /lead to conflict/)
  conflict('--zstdchunked --uncompress', /lead to conflict/)
  conflict('--zstdchunked', /--oci/)
  conflict('--estargz --estargz-keep-diff-id', /--estargz-external-toc/)
  conflict('--estargz --estargz-external-toc --estargz-keep-diff-id --estargz-record-in x', /record-in/)
  conflict('--estargz --GH lzma', /lzma/)
  conflict('--estargz --estargz-compression-level 99', /estargz-compression-level/)
  conflict('--estargz --estargz-record-in /nonexistent', /\/nonexistent/, 3)

  it('of an image that is not there publishes nothing', async () => {
    await fails(3, 'image', 'convert', '-q', '--estargz', '--oci', 'absent:1', 'absent:esgz')
    expect(await ok('image', 'ls', '-q', 'absent')).toBe('')
  })
})

describe('optimize', () => {
  const optimize = ['image', 'optimize', '-q', '--oci'] as const

  it('--no-optimize runs nothing and says so in every layer', async () => {
    await ok(...optimize, '--no-optimize', `docker://${host}/sample:1`, 'optimized:none')
    expect(await ok('image', 'verify', 'optimized:none')).toMatch(/sound$/)
    expect(await tocNames('optimized:none', 0)).toEqual([
      '.no.prefetch.landmark',
      'bin/app',
      'etc/config',
      'var/data',
    ])
  })

  it('--prefetch-list puts what it names first, in its own order', async () => {
    const file = join(user.home, 'prefetch')
    await writeFile(file, '# what the service reads\n/var/*\netc/config\n')
    await ok(...optimize, '--prefetch-list', file, `docker://${host}/sample:1`, 'optimized:list')
    expect(await tocNames('optimized:list', 0)).toEqual([
      'var/data',
      'etc/config',
      '.prefetch.landmark',
      'bin/app',
    ])
    expect(await tocNames('optimized:list', 1)).toEqual(['.no.prefetch.landmark', 'etc/other'])
  })

  it('--profile puts what profiles say first, and tells readers what is read of it, as convert --profile does', async () => {
    const [first, second] = [join(user.home, 'first.profile'), join(user.home, 'second.profile')]
    await writeFile(first, '{"path":"var/data","reads":[[0,4096,5]]}\n')
    await writeFile(second, '{"path":"etc/config","reads":[[0,7,1]]}\n')
    const profiles = ['--profile', first, '--profile', second]
    await ok(...optimize, ...profiles, `docker://${host}/sample:1`, 'optimized:profiled')
    expect(await tocNames('optimized:profiled', 0)).toEqual([
      'etc/config',
      'var/data',
      '.prefetch.landmark',
      'bin/app',
    ])
    const {manifests} = JSON.parse(await ok('image', 'inspect', '--json', 'optimized:profiled'))
    const plans = manifests[0].layers.map(
      ({annotations}: {annotations: Record<string, string>}) =>
        annotations['containerd.io/snapshot/ctr-remote/prefetch.plan'],
    )
    expect(plans).toEqual([expect.stringMatching(/^1\.\w+$/), '1.'])
    expect(await ok('image', 'verify', 'optimized:profiled')).toMatch(/sound$/)
    const convert = ['image', 'convert', '--estargz', '--oci', ...profiles]
    const digest = await ok(...convert, '--quiet', `docker://${host}/sample:1`, 'converted:profiled')
    expect(digest).toBe(
      JSON.parse(await ok('image', 'inspect', '--json', 'optimized:profiled')).target.digest,
    )
  })

  it('is what image explain tells of, on a terminal, as JSON and as a page', async () => {
    const profile = join(user.home, 'explained.profile')
    await writeFile(profile, '{"path":"var/data","reads":[[0,4096,5]]}\n')
    const source = `docker://${host}/sample:1`
    await ok(...optimize, '--profile', profile, source, 'optimized:explained')
    const page = join(user.home, 'report.html')
    const words = ['image', 'explain', '--profile', profile, '--against', source, 'optimized:explained']
    const text = await ok(...words, '-o', page)
    expect(text).toMatch(/^optimized:explained linux\/amd64 sha256:\w+\nagainst docker:/)
    expect(text).toContain('good: All that the profile reads is prefetched.')
    expect(await readFile(page, 'utf8')).toMatch(/^<!doctype html>[\s\S]*var\/data[\s\S]*<\/html>\n$/)
    const json = JSON.parse(await ok(...words, '--json'))
    expect(json).toMatchObject({
      totals: {missedBytes: 0},
      against: {advice: [{isGood: false, text: expect.stringMatching(/^No layer/)}]},
    })
    expect(await ok('image', 'explain', '--quiet', '-o', '/dev/stdout', 'optimized:explained')).toMatch(
      /^<!doctype html>[\s\S]*<\/html>$/,
    )
    expect(await fails(3, 'image', 'explain', 'gone:1')).toMatch(/gone:1/)
  })

  it('--profile with --estargz-keep-diff-id leaves the order, and tells what is read', async () => {
    const file = join(user.home, 'kept.profile')
    await writeFile(file, '{"path":"var/data","reads":[[0,4096,5]]}\n')
    const keep = ['--estargz', '--oci', '--estargz-external-toc', '--estargz-keep-diff-id']
    const source = `docker://${host}/sample:1`
    await ok('image', 'convert', ...keep, '--profile', file, source, 'kept:profiled')
    expect(await ok('image', 'verify', 'kept:profiled')).toMatch(/sound$/)
    const {manifests} = JSON.parse(await ok('image', 'inspect', '--json', 'kept:profiled'))
    expect(manifests[0].layers[0].annotations['containerd.io/snapshot/ctr-remote/prefetch.plan']).toMatch(
      /^1\.\w+$/,
    )
  })

  it('--profile says which file, and which line of it, is wrong', async () => {
    const file = join(user.home, 'wrong.profile')
    const profiled = ['image', 'optimize', '--oci', '--profile', file, `docker://${host}/sample:1`, 'b:1']
    expect(await fails(3, ...profiled)).toMatch(/Cannot read the profile ".*wrong\.profile"/)
    await writeFile(file, '{"path":"a"}\n{"path":"b","reads":[[5,1,0]]}\n')
    expect(await fails(2, ...profiled)).toMatch(/line 2 of the record ".*wrong\.profile": "reads" is no list/)
  })

  it('--reuse keeps layers that need nothing, and says which', async () => {
    await ok(...optimize, '--no-optimize', `docker://${host}/sample:1`, 'optimized:once')
    const {stderr, stdout} = await user.run(
      ...optimize,
      '--no-optimize',
      '--reuse',
      'optimized:once',
      'optimized:twice',
    )
    expect(stderr.match(/^reusing "sha256:[0-9a-f]{64}" without conversion$/gm)).toHaveLength(2)
    expect(stdout).toBe(
      `${JSON.parse(await ok('image', 'inspect', '--json', 'optimized:once')).target.digest}\n`,
    )
  })

  const conflict = (argv: readonly string[], message: RegExp, exitCode = 2) =>
    it(`${argv.join(' ')} is refused`, async () => {
      expect(await fails(exitCode, 'image', 'optimize', ...argv, 'a:1', 'b:1')).toMatch(message)
    })
  conflict(['--no-optimize', '--prefetch-list', 'x'], /--prefetch-list/)
  conflict(['--no-optimize', '--record-out', 'x'], /--record-out/)
  conflict(['--profile', 'x', '--profile-out', 'y'], /--profile/)
  conflict(['--profile', 'x', '--prefetch-list', 'y'], /--profile/)
  conflict(['--reuse', '--estargz-external-toc'], /--reuse/)
  conflict(['--wait-on-signal', '-t', '-i'], /--terminal/)
  conflict(['-t'], /needs -i/)
  conflict(['--cni', '--net-host'], /--cni/)
  conflict(['--entrypoint', 'sh'], /JSON array/)
  conflict(['--mount', 'type=bind'], /mount/)
})

/** The names of a layer's TOC, directories left out. */
async function tocNames(image: string, layerIndex: number): Promise<string[]> {
  const {manifests} = JSON.parse(await ok('image', 'inspect', '--json', image))
  const {digest, annotations} = manifests[0].layers[layerIndex]
  const printed = await ok('image', 'get-toc-digest', digest)
  expect(printed).toBe(annotations['containerd.io/snapshot/stargz/toc.digest'])
  const {entries} = JSON.parse(await ok('image', 'get-toc-digest', '--dump-toc', digest))
  return entries
    .filter((entry: {type: string}) => entry.type === 'reg')
    .map((entry: {name: string}) => entry.name)
}

describe('verify', () => {
  it('finds a damaged byte, says where, and exits 1', async () => {
    await using other = await createUser()
    const converted = await other.run(
      'image',
      'convert',
      '-q',
      '--estargz',
      '--oci',
      `docker://${host}/sample:1`,
      'damaged',
    )
    expect(converted.exitCode, converted.stderr).toBe(0)
    const {manifests} = JSON.parse((await other.run('image', 'inspect', '--json', 'damaged')).stdout)
    const {digest} = manifests[0].layers[0]
    const blob = join(
      other.home,
      '.local/share/ctr-remote/images/blobs/sha256',
      digest.slice('sha256:'.length),
    )
    const bytes = await readFile(blob)
    bytes[100] = bytes[100]! ^ 1
    await writeFile(blob, bytes)
    const {exitCode, stdout} = await other.run('image', 'verify', '-q', 'damaged')
    expect(exitCode).toBe(1)
    expect(stdout).toContain(`${digest.slice(0, 'sha256:'.length + 12)}  eStargz`)
    expect((await other.run('image', 'verify', '-q', '--no-trunc', 'damaged')).stdout).toContain(digest)
    expect(stdout).toMatch(/NOT SOUND$/m)
    const told = await other.run('image', 'verify', '-q', '--json', 'damaged')
    expect(told.exitCode).toBe(1)
    expect(JSON.parse(told.stdout)).toMatchObject({sound: false})
  })

  it('of an image without lazy layers exits 1, of none 3', async () => {
    expect((await user.run('image', 'verify', '-q', `docker://${host}/sample:1`)).exitCode).toBe(1)
    await fails(3, 'image', 'verify', '-q', 'absent')
  })
})

describe('get-toc-digest', () => {
  it('of what is no layer of the store exits 3, of no digest 2', async () => {
    await fails(3, 'image', 'get-toc-digest', `sha256:${'0'.repeat(64)}`)
    await fails(2, 'image', 'get-toc-digest', 'sample:1')
  })
})

describe('push', () => {
  it('sends an image under another name', async () => {
    const digest = await ok('image', 'pull', '-q', `${host}/sample:1`)
    expect(await ok('image', 'push', '-q', `${host}/copy:2`, `${host}/sample:1`)).toBe(digest)
    expect(await ok('image', 'pull', '-q', `${host}/copy:2`)).toBe(digest)
  })

  it('sends the platforms that the store has of an index', async () => {
    await using other = await createUser()
    await other.run('image', 'pull', '-q', '--platform', 'linux/arm64', `${host}/multi:1`)
    const pushed = await other.run('image', 'push', '-q', `${host}/arm:1`, `${host}/multi:1`)
    expect(pushed.exitCode, pushed.stderr).toBe(0)
    const {manifests} = JSON.parse(await ok('image', 'inspect', '--json', `docker://${host}/arm:1`))
    expect(manifests).toEqual([expect.objectContaining({platform: 'linux/arm64'})])
  })
})

describe('archives', () => {
  it('carry images from store to store, by file and by pipe', async () => {
    const digest = await ok('image', 'pull', '-q', `${host}/sample:1`)
    const file = join(user.home, 'images.tar')
    await ok('image', 'export', '-q', file, `${host}/sample:1`)
    await using other = await createUser()
    expect((await other.run('image', 'import', '-q', file)).stdout).toBe(`${host}/sample:1\n`)
    const listed = JSON.parse((await other.run('image', 'ls', '--json')).stdout)
    expect(listed).toEqual([expect.objectContaining({name: `${host}/sample:1`, digest})])
    const piped = other.start('image', 'export', '-q', '-', `${host}/sample:1`)
    const {exitCode, stdout} = await piped.finished
    expect(exitCode).toBe(0)
    expect(stdout).toContain('oci-layout')
  })

  it('name images by digest too, when asked', async () => {
    const digest = await ok('image', 'pull', '-q', `${host}/sample:1`)
    const file = join(user.home, 'digests.tar')
    await ok('image', 'export', '-q', file, `${host}/sample:1`)
    expect(await ok('image', 'import', '-q', '--digests', file)).toBe(
      `${host}/sample:1\n${host}/sample@${digest}`,
    )
  })

  it('of other names than --base-name are left out', async () => {
    const file = join(user.home, 'base.tar')
    await ok('image', 'pull', '-q', `${host}/sample:1`)
    await ok('image', 'export', '-q', file, `${host}/sample:1`)
    expect(await fails(3, 'image', 'import', '-q', '--base-name', 'example.com/other', file)).toMatch(/other/)
  })

  it('that are none exit 2, missing ones 3', async () => {
    const file = join(user.home, 'garbage.tar')
    await writeFile(file, Buffer.alloc(10_240))
    await fails(2, 'image', 'import', '-q', file)
    await fails(3, 'image', 'import', '-q', join(user.home, 'missing.tar'))
    await fails(3, 'image', 'export', '-q', join(user.home, 'out.tar'), 'missing')
    await expect(readFile(join(user.home, 'out.tar'))).rejects.toThrow('ENOENT')
  })
})

describe('a command that is interrupted', () => {
  for (const [signal, exitCode] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    it(`by ${signal} exits ${exitCode} and leaves nothing visible`, async () => {
      await using stalling = await startFaultyRegistry()
      stalling.inject({method: 'GET'}, {kind: 'stall', afterBytes: 0})
      const pulling = user.start('image', 'pull', '--http-trace', `${stalling.host}/stalled:1`)
      await expect.poll(() => stalling.requests.length, PATIENTLY).toBeGreaterThan(0)
      pulling.child.kill(signal)
      const finished = await pulling.finished
      expect(finished).toMatchObject({exitCode, stdout: ''})
      expect(finished.stderr).toMatch(/ctr-remote: Cancelled$/m)
      expect(await ok('image', 'ls', '-q', 'stalled')).toBe('')
    })
  }

  it('by --timeout exits 8', async () => {
    await using stalling = await startFaultyRegistry()
    stalling.inject({method: 'GET'}, {kind: 'stall', afterBytes: 0})
    expect(await fails(8, '--timeout', '200ms', 'image', 'pull', `${stalling.host}/stalled:1`)).toMatch(
      /--timeout/,
    )
  })
})

describe('a proxy that limits requests, in front of a registry that refuses HEAD', () => {
  for (const [name, argv] of [
    ['push', (target: string) => ['image', 'push', '--plain-http', target, `${host}/sample:1`]],
    [
      'convert',
      (target: string) => [
        'image',
        'convert',
        '--estargz',
        '--oci',
        `docker://${host}/sample:1`,
        `docker://${target}`,
      ],
    ],
  ] as const) {
    it(`${name} recovers`, async () => {
      await using server = await startFaultyRegistry()
      server.inject({method: 'HEAD'}, {kind: 'status', status: 405}, Number.POSITIVE_INFINITY)
      server.inject({method: 'PUT', url: /uploads/}, {kind: 'status', status: 413})
      await ok('image', 'pull', '-q', `${host}/sample:1`)
      await ok(...argv(`${server.host}/app:1`))
      expect(server.requests.filter(({method}) => method === 'PATCH').length).toBeGreaterThan(0)
      expect(await ok('image', 'pull', '-q', `${server.host}/app:1`)).toMatch(DIGEST)
    })
  }
})

describeWith(['script'], 'on a terminal', () => {
  it('a conversion ends with what was gained, in one line', async () => {
    const command = `${CTR_REMOTE} image convert --estargz --oci docker://${host}/sample:1 terminal:1`
    const child = spawn('script', ['-qec', `stty cols 110; ${command}`, '/dev/null'], {
      env: {PATH: process.env.PATH, HOME: user.home, CTR_REMOTE_STORE: 'local', TERM: 'xterm'},
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const shown = stripVTControlCharacters(await text(child.stdout))
    const lines = shown.split(/\r?\n/).filter(line => line.trim() !== '')
    expect(lines.at(-1)).toMatch(DIGEST)
    expect(lines.at(-2)).toMatch(/^2 layers(?: \(\d reused\))?, .* -> .* \([+-].*%\), .*s$/)
  })

  it('the verdict of verify has colour, unless NO_COLOR says otherwise', async () => {
    const verify = async (env: Readonly<Record<string, string>>) => {
      const child = spawn(
        'script',
        ['-qec', `${CTR_REMOTE} image verify docker://${host}/sample:1`, '/dev/null'],
        {
          env: {PATH: process.env.PATH, HOME: user.home, TERM: 'xterm-256color', ...env},
          stdio: ['ignore', 'pipe', 'inherit'],
        },
      )
      return text(child.stdout)
    }
    expect(await verify({})).toContain('\u001b[31mNOT SOUND')
    expect(await verify({NO_COLOR: '1'})).toContain(': NOT SOUND')
  })

  it('and says nothing of it to scripts, or when it shall be quiet', async () => {
    const {stderr} = await user.run(
      'image',
      'convert',
      '--estargz',
      '--oci',
      `docker://${host}/sample:1`,
      'script:1',
    )
    expect(stderr).not.toContain('->')
  })
})

describe('archives on stdout', () => {
  const convert = (target: string) => [
    'image',
    'convert',
    '--estargz',
    '--oci',
    `docker://${host}/sample:1`,
    target,
  ]

  for (const target of ['oci-archive:/dev/stdout', 'oci-archive:/proc/self/fd/1']) {
    it(`${target} is the archive and nothing else; the digest goes to stderr`, async () => {
      const [script, path] = ['exec "$0" "$@" > archive.tar', join(user.home, 'archive.tar')]
      const child = spawn('sh', ['-c', script, CTR_REMOTE, ...convert(target)], {
        cwd: user.home,
        env: {PATH: process.env.PATH, HOME: user.home},
        stdio: ['ignore', 'ignore', 'pipe'],
      })
      const stderr = await text(child.stderr)
      const verified = JSON.parse(await ok('image', 'inspect', `oci-archive:${path}`, '--json'))
      expect(stderr.trim().split('\n')).toContain(verified.target.digest)
    })
  }

  it('elsewhere, the digest is what stdout has', async () => {
    const path = join(user.home, 'elsewhere.tar')
    expect(await ok(...convert(`oci-archive:${path}`))).toMatch(DIGEST)
  })
})
