// ctr-remote with a node of IPFS: what ipfs-push adds, and what verify and convert make of `ipfs://`.

import {randomBytes} from 'node:crypto'
import {join} from 'node:path'
import {gunzipSync} from 'node:zlib'
import {afterAll, beforeAll, describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {TOC_DIGEST} from '../../src/lib/oci/annotations.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import {encodeJson, type ImageIndex, type ImageManifest} from '../../src/lib/oci/manifest.ts'
import {OCI_INDEX} from '../../src/lib/oci/media-type.ts'
import {createUser, type Finished, type User} from '../support/ctr-remote.ts'
import {startIpfsNode, type TestIpfsNode} from '../support/ipfs-node.ts'
import {writeBlob, writeSampleImage, writeSampleIndex} from '../support/sample-image.ts'

let node: TestIpfsNode
let user: User

beforeAll(async () => {
  node = await startIpfsNode()
  user = await createUser({IPFS_PATH: node.repository})
  await using store = await openLocalStore(join(user.home, '.local/share/ctr-remote/images'))
  await using _ = await store.lease()
  const {content, images} = store
  const large = randomBytes(400_000).toString('base64')
  const layers = [{'a.txt': 'a\n', large}, {'b.txt': 'b\n'}]
  await images.put('localhost/app:oci', (await writeSampleImage(content, {layers})).root)
  await images.put('localhost/app:docker', (await writeSampleImage(content, {layers, family: 'docker'})).root)
  const {root, images: platforms} = await writeSampleIndex(content, ['amd64', 'arm64'])
  await images.put('localhost/app:multi', root)
  await images.put('localhost/app:attested', await attested(content, platforms[0]!.root, platforms[1]!.root))
})
afterAll(async () => {
  await user?.[Symbol.asyncDispose]()
  await node?.[Symbol.asyncDispose]()
})

/** An index as BuildKit writes it: an image, and an attestation of it. */
async function attested(
  content: Parameters<typeof writeBlob>[0],
  image: Descriptor,
  other: Descriptor,
): Promise<Descriptor> {
  const manifests = [
    {...image, platform: {os: 'linux', architecture: 'amd64'}},
    {
      ...other,
      platform: {os: 'unknown', architecture: 'unknown'},
      annotations: {
        'vnd.docker.reference.type': 'attestation-manifest',
        'vnd.docker.reference.digest': image.digest,
      },
    },
  ]
  return writeBlob(content, encodeJson({schemaVersion: 2, mediaType: OCI_INDEX, manifests}), OCI_INDEX)
}

const run = (...argv: readonly string[]): Promise<Finished> => user.run(...argv)

async function push(...argv: readonly string[]): Promise<string> {
  const {exitCode, stdout, stderr} = await run('images', 'ipfs-push', '--platform', 'linux/amd64', ...argv)
  expect(exitCode, stderr).toBe(0)
  expect(stdout).toMatch(/^baf[a-z2-7]{56}\n$/)
  return stdout.trim()
}

/** What a descriptor says to be in IPFS, which must be what its digest says. */
async function follow(descriptor: Descriptor): Promise<Buffer> {
  expect(descriptor.urls).toHaveLength(1)
  const [, cid] = /^ipfs:\/\/(baf\w+)$/.exec(descriptor.urls![0]!)!
  expect(node.pinned).toContain(cid)
  const bytes = await node.read(cid!)
  expect({digest: digestOf(bytes), size: bytes.length}).toEqual({
    digest: descriptor.digest,
    size: descriptor.size,
  })
  return bytes
}

const rootOf = async (cid: string): Promise<Descriptor> => JSON.parse((await node.read(cid)).toString())
const manifestOf = async (cid: string): Promise<ImageManifest> =>
  JSON.parse((await follow(await rootOf(cid))).toString())

describe('ipfs-push', () => {
  it('adds eStargz layers, config and manifest, which say where they are, and names the root', async () => {
    const cid = await push('localhost/app:oci')
    const root = await rootOf(cid)
    // The bytes are those that Go's encoder gives the reference.
    const {mediaType, digest, size, urls} = root
    expect((await node.read(cid)).toString()).toBe(
      `{"mediaType":"${mediaType}","digest":"${digest}","size":${size},"urls":["${urls![0]}"]}`,
    )
    const {config, layers} = await manifestOf(cid)
    const {rootfs} = JSON.parse((await follow(config)).toString())
    expect(layers).toHaveLength(2)
    for (const [index, layer] of layers.entries()) {
      expect(layer.annotations).toHaveProperty(TOC_DIGEST)
      expect(digestOf(gunzipSync(await follow(layer)))).toBe(rootfs.diff_ids[index])
    }
  })

  it('gives the same CID every time', async () => {
    expect(await push('localhost/app:oci')).toBe(await push('localhost/app:oci'))
  })

  it('leaves layers as they are with --estargz=false, and those that are eStargz already', async () => {
    await using store = await openLocalStore(join(user.home, '.local/share/ctr-remote/images'))
    const layersOf = async (name: string) => {
      const {target} = (await store.images.get(name))!
      await using blob = await store.content.open(target)
      const bytes = await blob.read(0, blob.size)
      return (JSON.parse(Buffer.from(bytes).toString()) as ImageManifest).layers.map(({digest}) => digest)
    }
    const plain = await manifestOf(await push('--estargz=false', 'localhost/app:oci'))
    expect(plain.layers.map(({digest}) => digest)).toEqual(await layersOf('localhost/app:oci'))
    const {exitCode, stderr} = await run(
      ...['image', 'convert', '--oci', '--estargz', '--platform', 'linux/amd64'],
      ...['--estargz-chunk-size', '5000', 'localhost/app:oci', 'localhost/app:esgz'],
    )
    expect(exitCode, stderr).toBe(0)
    const lazy = await manifestOf(await push('localhost/app:esgz'))
    expect(lazy.layers.map(({digest}) => digest)).toEqual(await layersOf('localhost/app:esgz'))
  })

  it("makes a Docker image's media types those of OCI, as the reference does", async () => {
    for (const flags of [[], ['--no-estargz']]) {
      const cid = await push(...flags, 'localhost/app:docker')
      const {mediaType, config, layers} = await manifestOf(cid)
      const types = [
        (await rootOf(cid)).mediaType,
        mediaType,
        config.mediaType,
        ...layers.map(layer => layer.mediaType),
      ]
      for (const type of types) expect(type).toMatch(/^application\/vnd\.oci\.image\./)
    }
  })

  it('adds every platform of an index, or those that are asked for', async () => {
    const {exitCode, stdout, stderr} = await run(
      'image',
      'ipfs-push',
      '--all-platforms',
      'localhost/app:multi',
    )
    expect(exitCode, stderr).toBe(0)
    const indexOf = async (cid: string): Promise<ImageIndex> =>
      JSON.parse((await follow(await rootOf(cid))).toString())
    const all = await indexOf(stdout.trim())
    expect(all.manifests.map(({platform}) => platform?.architecture)).toEqual(['amd64', 'arm64'])
    for (const manifest of all.manifests) await follow(manifest)
    const one = await indexOf(await push('localhost/app:multi'))
    expect(one.manifests.map(({platform}) => platform?.architecture)).toEqual(['amd64'])
  })

  it('names attestations that it leaves out', async () => {
    for (const flags of [[], ['--estargz=false']]) {
      const {exitCode, stdout, stderr} = await run(
        'image',
        'ipfs-push',
        '--all-platforms',
        ...flags,
        'localhost/app:attested',
      )
      expect(exitCode, stderr).toBe(0)
      expect(stderr).toMatch(/1 attestation left out, which vouches for the layers of the source.*: sha256:/)
      const {manifests}: ImageIndex = JSON.parse((await follow(await rootOf(stdout.trim()))).toString())
      expect(manifests).toHaveLength(1)
    }
  })

  it('says where it looked for a node, before it converts anything', async () => {
    await using other = await createUser()
    const {exitCode, stderr} = await other.run('image', 'ipfs-push', 'localhost/app:none')
    expect(exitCode).not.toBe(0)
    expect(stderr).toContain(
      `there is no "${other.home}/.ipfs/api"; start one (ipfs daemon), or set IPFS_PATH`,
    )
  })
})

describe('ipfs://', () => {
  const sound = async (cid: string) => {
    const {exitCode, stdout, stderr} = await run(
      'image',
      'verify',
      '--platform',
      'linux/amd64',
      `ipfs://${cid}`,
    )
    return {exitCode, text: stdout + stderr}
  }

  it('is verified, and converted into the store and a layout', async () => {
    const cid = await push('localhost/app:oci')
    expect(await sound(cid)).toMatchObject({exitCode: 0})
    for (const target of ['localhost/app:back', `oci:${join(user.home, 'layout')}:back`]) {
      const {exitCode, stderr} = await run(
        ...[
          'image',
          'convert',
          '--zstdchunked',
          '--oci',
          '--platform',
          'linux/amd64',
          `ipfs://${cid}`,
          target,
        ],
      )
      expect(exitCode, stderr).toBe(0)
      const {exitCode: again, stdout} = await run('image', 'verify', '--platform', 'linux/amd64', target)
      expect(again, stdout).toBe(0)
    }
  })

  it('cannot be written to', async () => {
    const cid = await push('localhost/app:oci')
    const {exitCode, stderr} = await run('image', 'convert', '--gzip', 'localhost/app:oci', `ipfs://${cid}`)
    expect(exitCode).not.toBe(0)
    expect(stderr).toContain('use image ipfs-push')
  })

  it('is not believed when the node lies, whatever about', async () => {
    const cid = await push('localhost/app:oci')
    const root = await rootOf(cid)
    const {config, layers} = await manifestOf(cid)
    const cids = [cid, ...[root, config, ...layers].map(({urls}) => urls![0]!.slice('ipfs://'.length))]
    try {
      for (const lie of cids) {
        for (const fault of [{kind: 'lie'}, {kind: 'short', bytes: 1}] as const) {
          node.fail(fault, asked => asked === lie)
          const {exitCode, text} = await sound(cid)
          expect(exitCode, text).not.toBe(0)
          expect(text).toMatch(/not what the CID|its digest is|The blob is sha256:|sent \d+ instead/)
        }
      }
    } finally {
      node.fail(undefined)
    }
    expect(await sound(cid)).toMatchObject({exitCode: 0})
  })

  it('of something else than an image is told', async () => {
    const cid = await node.add(Buffer.from('hello world'))
    expect((await sound(cid)).text).toContain("it is no JSON of an image's root")
    const other = await node.add(encodeJson({...(await rootOf(await push('localhost/app:oci'))), urls: []}))
    expect((await sound(other)).text).toContain('it is no image of ipfs-push')
    expect((await sound('hello')).text).toContain('it is no CID of IPFS')
  })

  it('of a node that is gone is told with its address', async () => {
    await using gone = await startIpfsNode()
    const cid = await gone.add(Buffer.from('x'))
    await gone.stop()
    await using other = await createUser({IPFS_PATH: gone.repository})
    const {exitCode, stderr} = await other.run('image', 'verify', `ipfs://${cid}`)
    expect(exitCode).not.toBe(0)
    expect(stderr).toMatch(/at 127\.0\.0\.1:\d+: nothing listens there/)
  })
})
