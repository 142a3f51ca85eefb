// The formats of layers through the commands: into each of them, checked, and back.

import {mkdtemp, readFile, rm, writeFile} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {afterAll, beforeAll, describe, expect, it} from 'vitest'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {EXTERNAL_TOC_LAYER, TOC_DIGEST} from '../../src/lib/oci/annotations.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import type {Store} from '../../src/lib/oci/image-store.ts'
import {type ImageManifest, parseImageDocument} from '../../src/lib/oci/manifest.ts'
import {OCI_EMPTY, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD} from '../../src/lib/oci/media-type.ts'
import {type RunningRegistry, serveRegistry} from '../../src/lib/registry-server/serve-registry.ts'
import {createUser, type User} from '../support/ctr-remote.ts'
import {readBlob, writeSampleImage} from '../support/sample-image.ts'

const layers = [
  {'bin/app': 'app\n', 'etc/config': 'config\n', 'var/data': 'x'.repeat(50_000)},
  {'etc/other': 'other\n'},
]

let user: User
let directory: string
let store: Store
let registry: RunningRegistry
let source: string

beforeAll(async () => {
  user = await createUser()
  directory = await mkdtemp(join(tmpdir(), 'ctr-remote-formats-'))
  store = await openLocalStore(directory)
  await using _lease = await store.lease()
  const sample = await writeSampleImage(store.content, {layers})
  await store.images.put('localhost/sample:1', sample.root)
  registry = await serveRegistry(store)
  source = `docker://${registry.address}/sample:1`
})
afterAll(async () => {
  await registry?.[Symbol.asyncDispose]()
  await store?.[Symbol.asyncDispose]()
  await user?.[Symbol.asyncDispose]()
  await rm(directory, {recursive: true, force: true})
})

async function run(exitCode: number, ...argv: readonly string[]): Promise<{stdout: string; stderr: string}> {
  const finished = await user.run('image', ...argv)
  expect(finished.exitCode, `${argv.join(' ')}: ${finished.stderr}${finished.stdout}`).toBe(exitCode)
  return finished
}

/** The manifest of an image in the user's store. */
async function manifestOf(name: string): Promise<ImageManifest> {
  const own = await openLocalStore(join(user.home, '.local/share/ctr-remote/images'))
  const image = await own.images.get(`docker.io/library/${name}`)
  const root = image?.target as Descriptor
  const document = parseImageDocument(await readBlob(own.content, root), root.mediaType, name)
  await own[Symbol.asyncDispose]()
  if (document.kind !== 'manifest') throw new Error('an index')
  return document.manifest
}

describe('TOCs in an image of their own', () => {
  it.each([
    ['outside', []],
    ['kept', ['--estargz-keep-diff-id']],
  ])('%s: are named before the digest, and found by verify', async (name, flags) => {
    const {stdout} = await run(
      0,
      ...['convert', '-q', '--estargz', '--oci', '--estargz-external-toc', ...flags, source, `${name}:1`],
    )
    expect(stdout).toMatch(
      new RegExp(`^extra image: docker.io/library/${name}:1-esgztoc\nsha256:[0-9a-f]{64}\n$`),
    )
    const image = await manifestOf(`${name}:1`)
    const tocs = await manifestOf(`${name}:1-esgztoc`)
    expect(tocs.config.mediaType).toBe(OCI_EMPTY)
    expect(tocs.layers.map(({mediaType}) => mediaType)).toEqual([OCI_LAYER_GZIP, OCI_LAYER_GZIP])
    expect(tocs.layers.map(({annotations}) => annotations?.[EXTERNAL_TOC_LAYER]).sort()).toEqual(
      image.layers.map(({digest}) => digest).sort(),
    )
    const digests = tocs.layers.map(({digest}) => digest)
    expect(digests).toEqual([...digests].sort())
    expect((await run(0, 'verify', '-q', `${name}:1`)).stdout).toMatch(/external TOC, .*ok\n/)
  })

  it('are found again with the layers that were converted before', async () => {
    const convert = ['convert', '--estargz', '--oci', '--estargz-external-toc', source, 'again:1']
    const first = await run(0, ...convert)
    const second = await run(0, ...convert)
    expect(second.stdout).toBe(first.stdout)
    expect(second.stderr.match(/reused without conversion/g)).toHaveLength(layers.length)
    await run(0, 'verify', '-q', 'again:1')
  })

  it('are made again when they are gone', async () => {
    const convert = ['convert', '-q', '--estargz', '--oci', '--estargz-external-toc', source, 'anew:1']
    const first = await run(0, ...convert)
    await run(0, 'rm', 'anew:1-esgztoc')
    expect((await run(0, ...convert)).stdout).toBe(first.stdout)
    await run(0, 'verify', '-q', 'anew:1')
  })

  it('are found by the digest of a layer alone', async () => {
    await run(0, 'convert', '-q', '--estargz', '--oci', '--estargz-external-toc', source, 'found:1')
    for (const layer of (await manifestOf('found:1')).layers) {
      const {stdout} = await run(0, 'get-toc-digest', layer.digest)
      expect(stdout.trim()).toBe(layer.annotations![TOC_DIGEST])
    }
  })

  it('that are nowhere have no digest to print', async () => {
    const flags = ['--estargz', '--oci', '--estargz-external-toc', '--estargz-chunk-size=4444']
    await run(0, 'convert', '-q', ...flags, source, 'nowhere:1')
    const [layer] = (await manifestOf('nowhere:1')).layers
    await run(0, 'rm', 'nowhere:1-esgztoc')
    expect((await run(3, 'get-toc-digest', layer!.digest)).stderr).toMatch(/kept outside of the layer/)
  })

  it('that are gone make an image unsound', async () => {
    await run(0, 'convert', '-q', '--estargz', '--oci', '--estargz-external-toc', source, 'gone:1')
    await run(0, 'rm', 'gone:1-esgztoc')
    expect((await run(1, 'verify', '-q', 'gone:1')).stdout).toMatch(/kept in another image/)
  })

  it('go where the image goes: to a registry, and into a directory', async () => {
    for (const place of [`docker://${registry.address}/pushed:1`, `oci:${join(directory, 'layout')}:1`]) {
      const {stdout} = await run(
        0,
        ...['optimize', '-q', '--no-optimize', '--oci', '--estargz-external-toc', source, place],
      )
      expect(stdout).toMatch(/^extra image: .*:1-esgztoc\n/)
      await run(0, 'verify', '-q', place)
    }
  })

  it('are pushed along with the image that needs them, under its new name', async () => {
    await run(0, 'convert', '-q', '--estargz', '--oci', '--estargz-external-toc', source, 'along:1')
    const remote = `${registry.address}/along:2`
    const {stdout} = await run(0, 'push', '-q', '--with-toc', remote, 'along:1')
    expect(stdout).toMatch(new RegExp(`^extra image: ${remote}-esgztoc\nsha256:[0-9a-f]{64}\n$`))
    expect((await run(0, 'verify', '-q', `docker://${remote}`)).stdout).toMatch(/external TOC, .*ok\n/)
  })

  it('cannot be pushed along when there are none', async () => {
    await run(0, 'convert', '-q', '--estargz', '--oci', source, 'inside:1')
    const remote = `${registry.address}/inside:1`
    const {stderr} = await run(3, 'push', '-q', '--with-toc', remote, 'inside:1')
    expect(stderr).toMatch(/inside:1-esgztoc/)
    await run(3, 'verify', '-q', `docker://${remote}`)
  })

  it('have no place beside an archive', async () => {
    const archive = `oci-archive:${join(directory, 'archive.tar')}`
    const {stderr} = await run(
      2,
      ...['convert', '-q', '--estargz', '--oci', '--estargz-external-toc', source, archive],
    )
    expect(stderr).toMatch(/archive/)
  })
})

describe('zstd:chunked', () => {
  it.each([
    ['podman', 'io.github.containers.zstd-chunked.manifest-checksum', TOC_DIGEST],
    ['stargz', TOC_DIGEST, 'io.github.containers.zstd-chunked.manifest-checksum'],
  ])('for %s is sound, and has the annotations of one reader', async (dialect, present, absent) => {
    const name = `zstd-${dialect}:1`
    await run(
      0,
      ...['convert', '-q', '--zstdchunked', '--oci', `--zstdchunked-dialect=${dialect}`, source, name],
    )
    const {layers} = await manifestOf(name)
    for (const {mediaType, annotations} of layers) {
      expect(mediaType).toBe(OCI_LAYER_ZSTD)
      expect(annotations).toHaveProperty([present])
      expect(annotations).not.toHaveProperty([absent])
    }
    expect((await run(0, 'verify', '-q', name)).stdout).toMatch(/zstd:chunked, .*ok\n/)
    const {stdout} = await run(0, 'get-toc-digest', '--zstdchunked', layers[0]!.digest)
    const tocDigest = stdout.trim()
    if (dialect === 'stargz') expect(layers[0]!.annotations![TOC_DIGEST]).toBe(tocDigest)
    const toc = await run(0, 'get-toc-digest', '--dump-toc', layers[0]!.digest)
    expect(toc.stdout).toContain('"name": "bin/app"')
  })

  it('comes first what a record names, and optimize writes it too', async () => {
    const list = join(directory, 'list')
    await writeFile(list, 'var/data\n')
    await run(0, ...['optimize', '-q', '--zstdchunked', '--oci', '--prefetch-list', list, source, 'listed:1'])
    const {layers} = await manifestOf('listed:1')
    const {stdout} = await run(0, 'get-toc-digest', '--dump-toc', layers[0]!.digest)
    const {entries} = JSON.parse(stdout) as {entries: {name: string}[]}
    expect(entries.map(({name}) => name)).toEqual(['var/data', '.prefetch.landmark', 'bin/app', 'etc/config'])
    await run(0, 'verify', '-q', 'listed:1')
  })

  it('takes a record, as eStargz does', async () => {
    const record = join(directory, 'record.json')
    await writeFile(record, '{"path":"etc/config"}\n{"path":"etc/other"}\n')
    const flags = ['--zstdchunked', '--oci', `--zstdchunked-record-in=${record}`]
    const {stderr} = await run(0, 'convert', '-q', ...flags, source, 'recorded:1')
    expect(stderr).not.toMatch(/in no layer/)
    const firsts = (await manifestOf('recorded:1')).layers.map(async ({digest}) => {
      const {stdout} = await run(0, 'get-toc-digest', '--dump-toc', digest)
      return JSON.parse(stdout)
        .entries.slice(0, 2)
        .map(({name}: {name: string}) => name)
    })
    expect(await Promise.all(firsts)).toEqual([
      ['etc/config', '.prefetch.landmark'],
      ['etc/other', '.prefetch.landmark'],
    ])
  })

  it('stays as it is with --reuse, and --format json says so as nerdctl does', async () => {
    await run(0, 'optimize', '-q', '--no-optimize', '--zstdchunked', '--oci', source, 'first:1')
    const {stdout, stderr} = await run(
      0,
      ...['optimize', '-q', '--no-optimize', '--reuse', '--zstdchunked', '--oci', '--format=json'],
      ...['--platform=linux/amd64,linux/arm64', 'first:1', 'second:1'],
    )
    expect(stderr.match(/reusing "sha256:[0-9a-f]{64}" without conversion/g)).toHaveLength(2)
    const {layers} = await manifestOf('first:1')
    expect((await manifestOf('second:1')).layers).toEqual(layers)
    expect(JSON.parse(stdout)).toEqual({
      Image: expect.stringMatching(/^docker.io\/library\/second:1@sha256:/),
      ExtraImages: null,
    })
  })

  it('needs media types that can name it', async () => {
    const {stderr} = await run(2, 'convert', '-q', '--zstdchunked', source, 'docker:1')
    expect(stderr).toMatch(/--oci/)
  })
})

describe('eStargz with a minimum size of streams', () => {
  it('takes a record, as eStargz does', async () => {
    const record = join(directory, 'record.json')
    await writeFile(record, '{"path":"etc/config"}\n{"path":"etc/other"}\n')
    const flags = ['--zstdchunked', '--oci', `--zstdchunked-record-in=${record}`]
    const {stderr} = await run(0, 'convert', '-q', ...flags, source, 'recorded:1')
    expect(stderr).not.toMatch(/in no layer/)
    const firsts = (await manifestOf('recorded:1')).layers.map(async ({digest}) => {
      const {stdout} = await run(0, 'get-toc-digest', '--dump-toc', digest)
      return JSON.parse(stdout)
        .entries.slice(0, 2)
        .map(({name}: {name: string}) => name)
    })
    expect(await Promise.all(firsts)).toEqual([
      ['etc/config', '.prefetch.landmark'],
      ['etc/other', '.prefetch.landmark'],
    ])
  })

  it('stays as it is with --reuse, which the reference cannot do', async () => {
    const sizes = ['--estargz-min-chunk-size', '50000', '--estargz-chunk-size', '1000']
    await run(0, 'convert', '-q', '--estargz', '--oci', ...sizes, source, 'streams:1')
    const {stderr} = await run(0, 'optimize', '--no-optimize', '--reuse', '--oci', 'streams:1', 'reused:1')
    expect(stderr.match(/reusing "sha256:[0-9a-f]{64}" without conversion/g)).toHaveLength(2)
    expect((await manifestOf('reused:1')).layers).toEqual((await manifestOf('streams:1')).layers)
  })
})

describe('the way back', () => {
  it('from a DiffID that was kept is the source: its config, and its tars', async () => {
    await run(0, 'pull', '-q', source)
    const config = (await manifestOf('kept:1')).config
    await run(0, 'convert', '-q', '--uncompress', '--oci', 'kept:1', 'bare:1')
    await run(0, 'convert', '-q', '--gzip', '--oci', 'kept:1', 'plain:1')
    const bare = await manifestOf('bare:1')
    const plain = await manifestOf('plain:1')
    expect(bare.config).toEqual(config)
    expect(plain.config).toEqual(config)
    expect(bare.layers.map(({mediaType}) => mediaType)).toEqual([OCI_LAYER, OCI_LAYER])
    expect(plain.layers.map(({mediaType}) => mediaType)).toEqual([OCI_LAYER_GZIP, OCI_LAYER_GZIP])
    expect([...bare.layers, ...plain.layers].every(({annotations}) => annotations === undefined)).toBe(true)
  })
})

it('a layer beyond --max-layer-size is refused by every conversion', async () => {
  const conversions = [
    ['convert', '--estargz', '--estargz-chunk-size=1000'],
    ['convert', '--zstd', '--zstd-compression-level=7'],
    ['optimize', '--no-optimize', '--estargz-chunk-size=2000'],
  ]
  for (const flags of conversions) {
    const {stderr} = await run(10, ...flags, '--oci', '--max-layer-size=20000', source, 'large:1')
    expect(stderr).toContain('decompresses to more than 20000 bytes, the limit')
  }
})

describe('places that cannot be', () => {
  it('a directory for temporary files that is not there is named where one is needed', async () => {
    const sample = await writeSampleImage(store.content, {layers: [{large: 'x'.repeat(20 << 20)}]})
    await using _lease = await store.lease()
    await store.images.put('localhost/large:1', sample.root)
    const convert = [
      'image',
      'convert',
      '--estargz',
      '--oci',
      `docker://${registry.address}/large:1`,
      'large:esgz',
    ]
    await using lost = await createUser({TMPDIR: '/nonexistent/directory'})
    const {exitCode, stderr} = await lost.run(...convert)
    expect(stderr).toContain(
      'Cannot make temporary files in "/nonexistent/directory": there is no such directory; set TMPDIR to a directory that can be written to',
    )
    expect(exitCode).not.toBe(0)
  })

  it.each(['', '/below'])('a layout in a file%s is refused in words', async below => {
    const file = join(user.home, 'file')
    await writeFile(file, 'precious')
    const finished = await user.run('image', 'convert', '--estargz', '--oci', source, `oci:${file}${below}:t`)
    expect(finished.stderr).toContain(`Cannot write to "${file}${below}": it is no directory`)
    expect(finished.exitCode).toBe(2)
    expect(await readFile(file, 'utf8')).toBe('precious')
  })
})
