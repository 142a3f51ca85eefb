import {execFileSync} from 'node:child_process'
import {mkdir, readFile, symlink, truncate, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {gzipSync, zstdCompressSync} from 'node:zlib'
import {describe, expect, it} from 'vitest'
import {openOciArchiveTarget} from '../../src/lib/archive/archive-transports.ts'
import {openArchive} from '../../src/lib/archive/open-archive.ts'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {hexOf} from '../../src/lib/oci/digest.ts'
import {encodeHeaderBlock} from '../../src/lib/tar/header.ts'
import {readBlob, tarOf, writeSampleImage} from '../support/sample-image.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const LAYER = tarOf({'a.txt': 'a'})
const CONFIG = JSON.stringify({
  os: 'linux',
  architecture: 'amd64',
  rootfs: {type: 'layers', diff_ids: [digestOf(LAYER)]},
})
const MANIFEST = [{Config: 'c.json', RepoTags: ['sample:1'], Layers: ['layer.tar']}]

/** A docker archive of these members, which override those of a good one. */
function dockerArchive(members: Record<string, string | Buffer | undefined> = {}): Buffer {
  const all = {'manifest.json': JSON.stringify(MANIFEST), 'c.json': CONFIG, 'layer.tar': LAYER, ...members}
  const present = Object.entries(all).filter(
    (pair): pair is [string, string | Buffer] => pair[1] !== undefined,
  )
  return tarOf(Object.fromEntries(present))
}

async function openBytes(bytes: Uint8Array) {
  const path = join(await temporaryDirectory(), 'a.tar')
  await writeFile(path, bytes)
  return openArchive(path)
}

const refused = (name: string, bytes: () => Uint8Array, code: string, message?: RegExp) =>
  it(`${name} is ${code}`, async () => {
    const opening = openBytes(bytes())
    await expect(opening).rejects.toMatchObject({code})
    if (message) await expect(opening).rejects.toThrow(message)
  })

describe('an archive', () => {
  refused('that is empty', () => Buffer.alloc(0), 'invalid-argument')
  refused(
    'that is no tar',
    () => Buffer.alloc(2048, 'x'),
    'corrupt',
    /^Cannot use ".*a\.tar": Cannot read the tar header at byte 0: /,
  )
  refused('without images', () => tarOf({'a.txt': 'a'}), 'invalid-argument', /neither an index.json/)
  refused(
    'in xz',
    () => execFileSync('xz', ['-c'], {input: dockerArchive()}),
    'unsupported',
    /^Cannot decompress ".*a.tar": xz is not supported, only gzip and zstd are$/,
  )
  refused(
    'in bzip2',
    () => execFileSync('bzip2', ['-c'], {input: dockerArchive()}),
    'unsupported',
    /bzip2 is not supported/,
  )
  refused('that is damaged gzip', () => gzipSync(dockerArchive()).subarray(0, 200), 'corrupt')
  refused(
    'with a member twice',
    () => Buffer.concat([tarOf({'c.json': '{}'}).subarray(0, -1024), dockerArchive()]),
    'corrupt',
    /twice/,
  )
  refused(
    'with a name outside of it',
    () => tarOf({'../../etc/passwd': 'x', 'manifest.json': '[]'}),
    'corrupt',
  )
  refused('that is cut off inside a member', () => dockerArchive().subarray(0, 2600), 'corrupt')
  refused(
    'that claims a member of 8 GiB',
    () =>
      Buffer.concat([encodeHeaderBlock({name: 'x', typeflag: '0', size: 8 ** 11 - 1}), Buffer.alloc(512)]),
    'corrupt',
    /truncated/,
  )
})

describe('a docker archive', () => {
  it('is read when it is good', async () => {
    await using archive = await openBytes(dockerArchive())
    expect(archive.images.map(image => image.names)).toEqual([['sample:1']])
  })

  refused(
    'with a layer in xz',
    () => dockerArchive({'layer.tar': execFileSync('xz', ['-c'], {input: LAYER})}),
    'unsupported',
    /^Cannot use the layer "layer.tar" in ".*a.tar": xz is not supported/,
  )
  it('without layers, which Go writes as null, is an image without layers', async () => {
    const config = JSON.stringify({os: 'linux', architecture: 'amd64', rootfs: {type: 'layers'}})
    const manifest = JSON.stringify([{...MANIFEST[0], Layers: null}])
    await using archive = await openBytes(
      dockerArchive({'manifest.json': manifest, 'c.json': config, 'layer.tar': undefined}),
    )
    const root = await readBlob(archive.content, archive.images[0]!.target)
    expect(JSON.parse(root.toString())).toMatchObject({layers: []})
  })

  refused('without its config', () => dockerArchive({'c.json': undefined}), 'corrupt', /lacks "c.json"/)
  refused('without a layer', () => dockerArchive({'layer.tar': undefined}), 'corrupt', /lacks the layer/)
  refused('whose manifest.json is no JSON', () => dockerArchive({'manifest.json': '['}), 'corrupt')
  refused('whose manifest.json is no list', () => dockerArchive({'manifest.json': '{}'}), 'corrupt')
  refused(
    'whose entry has no layers',
    () => dockerArchive({'manifest.json': '[{"Config":"c.json"}]'}),
    'corrupt',
  )
  refused(
    'whose entry has a number for a tag',
    () => dockerArchive({'manifest.json': '[{"Config":"c.json","Layers":[],"RepoTags":[1]}]'}),
    'corrupt',
  )
  refused(
    'with a huge manifest.json',
    () => dockerArchive({'manifest.json': Buffer.alloc(5 * 1024 * 1024, ' ')}),
    'corrupt',
    /limit/,
  )
  refused(
    'with a huge config',
    () => dockerArchive({'c.json': Buffer.alloc(9 * 1024 * 1024, ' ')}),
    'corrupt',
    /limit/,
  )
  refused(
    'with more layers than any image',
    () =>
      dockerArchive({
        'manifest.json': JSON.stringify([{Config: 'c.json', Layers: Array(2000).fill('layer.tar')}]),
      }),
    'corrupt',
    /limit/,
  )
  refused(
    'whose config knows other layers',
    () =>
      dockerArchive({
        'manifest.json': JSON.stringify([{...MANIFEST[0], Layers: ['layer.tar', 'layer.tar']}]),
      }),
    'corrupt',
    /has 1 layers/,
  )

  it('with another layer than its config says ends with an error when the layer is read', async () => {
    await using archive = await openBytes(dockerArchive({'layer.tar': tarOf({'a.txt': 'evil'})}))
    const [image] = archive.images
    const manifest = JSON.parse((await readBlob(archive.content, image!.target)).toString())
    await expect(readBlob(archive.content, manifest.layers[0])).rejects.toMatchObject({code: 'corrupt'})
  })

  it.each([
    ['gzip', gzipSync(LAYER)],
    ['zstd', zstdCompressSync(LAYER)],
  ])('with %s layers, which Docker loads too, serves them as such', async (compression, layer) => {
    await using archive = await openBytes(dockerArchive({'layer.tar': layer}))
    const manifest = JSON.parse((await readBlob(archive.content, archive.images[0]!.target)).toString())
    expect(manifest.layers[0]).toMatchObject({
      mediaType: `application/vnd.docker.image.rootfs.diff.tar.${compression}`,
      digest: digestOf(layer),
    })
    await readBlob(archive.content, manifest.layers[0])
  })

  it('with links to layers inside of it follows them, and only them', async () => {
    const directory = await temporaryDirectory()
    const make = async (name: string, target: string) => {
      const root = join(directory, name)
      await mkdir(join(root, 'id'), {recursive: true})
      await writeFile(join(root, 'real.tar'), LAYER)
      await writeFile(join(root, 'c.json'), CONFIG)
      await writeFile(
        join(root, 'manifest.json'),
        JSON.stringify([{...MANIFEST[0], Layers: ['id/layer.tar']}]),
      )
      await symlink(target, join(root, 'id/layer.tar'))
      execFileSync('tar', ['cf', `${root}.tar`, '-C', root, '.'])
      return `${root}.tar`
    }
    await using good = await openArchive(await make('good', '../real.tar'))
    const manifest = JSON.parse((await readBlob(good.content, good.images[0]!.target)).toString())
    expect(await readBlob(good.content, manifest.layers[0])).toEqual(LAYER)
    await expect(openArchive(await make('loop', '../id/layer.tar'))).rejects.toThrow(/do not end/)
    await expect(openArchive(await make('out', '/etc/passwd'))).rejects.toMatchObject({code: 'corrupt'})
    await expect(openArchive(await make('up', '../../../../../etc/passwd'))).rejects.toMatchObject({
      code: 'corrupt',
    })
  })
})

describe('an OCI archive', () => {
  async function goodArchive() {
    const path = join(await temporaryDirectory(), 'a.tar')
    await using target = await openOciArchiveTarget({path})
    const image = await writeSampleImage(target.content)
    await target.publish(image.root)
    return {path, image}
  }

  it('that is cut off anywhere fails, and never hangs or serves less', async () => {
    const {path, image} = await goodArchive()
    const whole = await readFile(path)
    for (let size = whole.length - 1024; size > 0; size -= 700) {
      await truncate(path, size)
      const reading = async () => {
        await using archive = await openArchive(path)
        for (const blob of [image.root, image.config, ...image.layers]) await readBlob(archive.content, blob)
      }
      if (size < whole.length - 1024) await expect(reading(), `${size} bytes`).rejects.toThrow()
      else await reading()
    }
  })

  it('with changed bytes of a blob ends with an error when that is read', async () => {
    const {path, image} = await goodArchive()
    const bytes = await readFile(path)
    const at = bytes.indexOf(Buffer.from('"architecture"'))
    bytes[at + 1] = 'X'.charCodeAt(0)
    await writeFile(path, bytes)
    await using archive = await openArchive(path)
    await expect(readBlob(archive.content, image.config)).rejects.toMatchObject({code: 'corrupt'})
  })

  it('with a blob of another size than its descriptor is corrupt', async () => {
    const {path, image} = await goodArchive()
    await using archive = await openArchive(path)
    const lying = {...image.config, size: image.config.size + 1}
    await expect(archive.content.open(lying)).rejects.toMatchObject({code: 'corrupt'})
    const missing = {...image.config, digest: digestOf('missing')}
    await expect(archive.content.open(missing)).rejects.toMatchObject({code: 'not-found'})
    expect(hexOf(missing.digest)).toHaveLength(64)
  })

  it('cannot be written to', async () => {
    const {path} = await goodArchive()
    await using archive = await openArchive(path)
    await expect(archive.content.write({mediaType: ''})).rejects.toMatchObject({code: 'unsupported'})
  })
})
