// The reference implementation as Debian ships it, beside ours: each reads what the other writes, layers and records.

import {execFile} from 'node:child_process'
import {mkdtemp, readFile, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {promisify} from 'node:util'
import {gunzipSync} from 'node:zlib'
import {afterAll, beforeAll, expect, it} from 'vitest'
import type {VerificationReport} from '../../src/cli/verification-report.ts'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {TOC_DIGEST} from '../../src/lib/oci/annotations.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import type {Store} from '../../src/lib/oci/image-store.ts'
import type {ImageManifest} from '../../src/lib/oci/manifest.ts'
import {parseRecord} from '../../src/lib/record/record-file.ts'
import {type RunningRegistry, serveRegistry} from '../../src/lib/registry-server/serve-registry.ts'
import {startContainerd, type TestContainerd} from '../support/containerd.ts'
import {createUser, type User} from '../support/ctr-remote.ts'
import {entriesOf} from '../support/layers.ts'
import {describeWith} from '../support/requires.ts'
import {readBlob} from '../support/sample-image.ts'
import {writeShellImage} from '../support/shell-image.ts'

const REFERENCE = '/usr/bin/ctr-remote'
const run = promisify(execFile)

describeWith(['root', 'runc', 'containerd', 'ctr', REFERENCE], 'the reference and we', () => {
  let home: string
  let user: User
  let store: Store
  let registry: RunningRegistry
  let containerd: TestContainerd
  /** Names in the registry and in containerd; `app:1` prints a file. */
  let app: string
  /** Records of the same workload, by each. */
  let records: {readonly ours: string; readonly theirs: string}

  beforeAll(async () => {
    home = await mkdtemp(join(tmpdir(), 'ctr-remote-reference-'))
    user = await createUser()
    store = await openLocalStore(join(home, 'store'))
    await using _ = await store.lease()
    const image = await writeShellImage(store.content, {Entrypoint: ['/bin/cat', '/data/file'], Cmd: []})
    await store.images.put('localhost/app:1', image)
    registry = await serveRegistry(store)
    containerd = await startContainerd()
    app = `${registry.address}/app`
    await containerd.ctr('image', 'pull', '--plain-http', `${app}:1`)
    records = {ours: join(home, 'ours.json'), theirs: join(home, 'theirs.json')}
  })
  afterAll(async () => {
    await containerd?.[Symbol.asyncDispose]()
    await registry?.[Symbol.asyncDispose]()
    await store?.[Symbol.asyncDispose]()
    await user?.[Symbol.asyncDispose]()
    await rm(home, {recursive: true, force: true})
  })

  /** The reference, on the test's containerd. */
  async function reference(...args: readonly string[]): Promise<string> {
    return (await run(REFERENCE, ['--address', containerd.address, ...args])).stdout
  }

  async function ours(...args: readonly string[]): Promise<string> {
    const {exitCode, stdout, stderr} = await user.run(...args)
    expect(exitCode, `${args.join(' ')}: ${stderr}${stdout}`).toBe(0)
    return stdout
  }

  /** The reference makes `app:<tag>` of `app:<from>` in containerd, which goes to the registry. */
  async function theyMake(tag: string, command: readonly string[], from = '1'): Promise<void> {
    await reference('image', ...command, `${app}:${from}`, `${app}:${tag}`)
    await containerd.ctr('image', 'push', '--plain-http', `${app}:${tag}`)
  }

  /** We make `app:<tag>` of `app:<from>` in the registry, which goes to containerd. */
  async function weMake(tag: string, command: readonly string[], from = '1'): Promise<void> {
    await ours('image', ...command, `docker://${app}:${from}`, `docker://${app}:${tag}`)
    await containerd.ctr('image', 'pull', '--plain-http', `${app}:${tag}`)
  }

  async function layersOf(tag: string): Promise<readonly Descriptor[]> {
    const image = await store.images.get(`localhost/app:${tag}`)
    const read = async (descriptor: Descriptor) =>
      JSON.parse(String(await readBlob(store.content, descriptor)))
    const document = await read(image!.target)
    const manifest: ImageManifest = document.manifests ? await read(document.manifests[0]) : document
    return manifest.layers
  }

  /** For each layer the names before its landmark, in order. */
  async function prioritizedIn(tag: string): Promise<string[][]> {
    const layers = await Promise.all((await layersOf(tag)).map(layer => readBlob(store.content, layer)))
    return layers.map(bytes => {
      const paths = entriesOf(gunzipSync(bytes)).map(({path}) => path)
      return paths.slice(0, Math.max(0, paths.indexOf('.prefetch.landmark')))
    })
  }

  it.each([
    ['esgz', ['convert', '--estargz', '--estargz-chunk-size', '10000', '--oci']],
    ['zstd', ['optimize', '--zstdchunked', '--oci', '--period', '1']],
  ])('%s as they write it is sound to us, and can be converted further', async (tag, command) => {
    await theyMake(`theirs-${tag}`, command)
    await ours('image', 'verify', `docker://${app}:theirs-${tag}`)
    await ours(
      'image',
      'convert',
      '--estargz',
      '--oci',
      `docker://${app}:theirs-${tag}`,
      `docker://${app}:again`,
    )
    await ours('image', 'verify', `docker://${app}:again`)
  })

  it.each([
    ['esgz', ['convert', '--estargz', '--estargz-chunk-size', '10000', '--oci'], []],
    ['zstd', ['convert', '--zstdchunked', '--zstdchunked-dialect', 'stargz', '--oci'], ['--zstdchunked']],
  ])('%s as we write it is read by them, and can be converted further', async (tag, command, flags) => {
    await weMake(`ours-${tag}`, command)
    for (const {digest, annotations} of await layersOf(`ours-${tag}`)) {
      const read = await reference('image', 'get-toc-digest', ...flags, digest)
      expect(read.trim()).toBe(annotations?.[TOC_DIGEST])
    }
    await theyMake(`again-${tag}`, ['convert', '--estargz', '--oci'], `ours-${tag}`)
    const {stdout} = await user.run('image', 'verify', '--json', `docker://${app}:again-${tag}`)
    const report = JSON.parse(stdout) as VerificationReport
    const findings = report.manifests.flatMap(({layers}) => layers.flatMap(layer => layer.findings))
    // They keep the media type of what they convert, so that gzip is called zstd.
    const kinds = findings.map(({kind}) => kind)
    expect(kinds).toEqual(tag === 'zstd' ? ['media-type', 'media-type'] : [])
  })

  it('see a workload read the same files', async () => {
    await theyMake('recorded-by-them', ['optimize', '--oci', '--period', '1', '--record-out', records.theirs])
    await weMake('recorded-by-us', ['optimize', '--oci', '--period', '1', '--record-out', records.ours])
    const read = async (file: string) => parseRecord(await readFile(file), file)
    const [theirs, own] = [await read(records.theirs), await read(records.ours)]
    const pathsIn = (entries: typeof own) => [
      ...new Set(entries.map(({path, layerIndex}) => `${layerIndex} ${path}`)),
    ]
    // We also see runc look up the user, before the workload starts.
    const ofWorkload = (path: string) => !path.endsWith(' etc/passwd') && !path.endsWith(' etc/group')
    expect(pathsIn(own).filter(ofWorkload)).toEqual(pathsIn(theirs))
    expect(pathsIn(own)).toContain('1 data/file')
    for (const tag of ['recorded-by-them', 'recorded-by-us'])
      await ours('image', 'verify', `docker://${app}:${tag}`)
  })

  it.each(['ours', 'theirs'] as const)('put the same files first by %s record', async whose => {
    const command = ['convert', '--estargz', '--oci', '--estargz-record-in', records[whose]]
    await theyMake(`${whose}-by-them`, command)
    await weMake(`${whose}-by-us`, command)
    const prioritized = await prioritizedIn(`${whose}-by-us`)
    expect(prioritized.flat()).toContain('data/file')
    expect(prioritized).toEqual(await prioritizedIn(`${whose}-by-them`))
  })
})
