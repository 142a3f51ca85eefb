import {execFileSync, spawn} from 'node:child_process'
import {once} from 'node:events'
import {readdir, readFile, stat, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {gzipSync, zstdCompressSync} from 'node:zlib'
import {describe, expect, it} from 'vitest'
import {importedNames} from '../../src/lib/archive/archive-names.ts'
import {
  openDockerArchiveSource,
  openDockerArchiveTarget,
  openOciArchiveSource,
  openOciArchiveTarget,
} from '../../src/lib/archive/archive-transports.ts'
import {createArchive} from '../../src/lib/archive/create-archive.ts'
import {openArchive} from '../../src/lib/archive/open-archive.ts'
import {copyImage} from '../../src/lib/copy/copy-image.ts'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import type {ImageSource, ImageTarget} from '../../src/lib/oci/image-store.ts'
import {describeWith} from '../support/requires.ts'
import {
  readBlob,
  type SampleOptions,
  writeBlob,
  writeSampleImage,
  writeSampleIndex,
} from '../support/sample-image.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const NAME = 'docker.io/library/sample:1'

async function copy(source: ImageSource, target: ImageTarget) {
  await using from = source
  await using to = target
  return await copyImage(from, to, {platforms: 'all', index: 'sparse'})
}

async function writeOci(path: string, tag: string | undefined, options: SampleOptions = {}) {
  await using target = await openOciArchiveTarget({path, tag})
  const image = await writeSampleImage(target.content, options)
  await target.publish(image.root)
  return image
}

async function writeDocker(path: string, reference: string | undefined, options: SampleOptions = {}) {
  await using target = await openDockerArchiveTarget({path, reference})
  const image = await writeSampleImage(target.content, options)
  await target.publish(image.root)
  return image
}

describe('oci-archive:', () => {
  it('gives back what was written', async () => {
    const path = join(await temporaryDirectory(), 'a.tar')
    const {root, layers} = await writeOci(path, 'v1')
    await using source = await openOciArchiveSource({path, tag: 'v1'})
    expect(await source.resolve()).toEqual(root)
    for (const layer of layers) await readBlob(source.content, layer)
    await using open = await source.content.open(layers[0]!)
    expect(Buffer.from(await open.read(0, 2)).toString('hex')).toBe('1f8b')
    await expect(open.read(0, open.size + 1)).rejects.toMatchObject({code: 'invalid-argument'})
  })

  it('is the same bytes for the same image', async () => {
    const directory = await temporaryDirectory()
    await writeOci(join(directory, 'a.tar'), 'v1')
    await writeOci(join(directory, 'b.tar'), 'v1')
    expect(await readFile(join(directory, 'a.tar'))).toEqual(await readFile(join(directory, 'b.tar')))
  })

  it('replaces a file, and holds only what its image needs', async () => {
    const directory = await temporaryDirectory()
    const path = join(directory, 'a.tar')
    await writeFile(path, 'something else')
    await using target = await openOciArchiveTarget({path})
    const unneeded = await writeBlob(target.content, Buffer.from('unneeded'))
    const {root} = await writeSampleImage(target.content)
    expect(await readFile(path, 'utf8')).toBe('something else')
    await target.publish(root)
    await using source = await openOciArchiveSource({path})
    expect(await source.content.info(unneeded)).toBeUndefined()
  })

  it('leaves nothing when it is given up', async () => {
    const directory = await temporaryDirectory()
    {
      await using target = await openOciArchiveTarget({path: join(directory, 'a.tar')})
      await writeSampleImage(target.content)
      expect(await readdir(directory)).toHaveLength(1)
    }
    expect(await readdir(directory)).toEqual([])
  })

  it('is refused where it cannot be', async () => {
    const directory = await temporaryDirectory()
    await expect(openOciArchiveTarget({path: directory})).rejects.toMatchObject({code: 'invalid-argument'})
    const path = join(directory, 'missing', 'a.tar')
    await expect(openOciArchiveTarget({path})).rejects.toMatchObject({code: 'not-found'})
    await expect(openOciArchiveSource({path})).rejects.toMatchObject({code: 'not-found'})
  })

  it('is read compressed, and from a pipe', async () => {
    const directory = await temporaryDirectory()
    const path = join(directory, 'a.tar')
    const {root} = await writeOci(path, 'v1')
    await writeFile(`${path}.gz`, gzipSync(await readFile(path)))
    const pipe = join(directory, 'pipe')
    execFileSync('mkfifo', [pipe])
    const cat = spawn('sh', ['-c', 'cat "$1" > "$2"', 'sh', path, pipe])
    const ended = once(cat, 'exit')
    await writeFile(`${path}.zst`, zstdCompressSync(await readFile(path)))
    for (const file of [`${path}.gz`, `${path}.zst`, pipe]) {
      await using source = await openOciArchiveSource({path: file, tag: 'v1'})
      expect(await source.resolve()).toEqual(root)
    }
    await ended
  })

  it('is written to a pipe', async () => {
    const directory = await temporaryDirectory()
    const pipe = join(directory, 'pipe')
    execFileSync('mkfifo', [pipe])
    const cat = spawn('sh', ['-c', 'cat "$1" > "$2"', 'sh', pipe, join(directory, 'a.tar')])
    const ended = once(cat, 'exit')
    const {root} = await writeOci(pipe, 'v1')
    await ended
    await using source = await openOciArchiveSource({path: join(directory, 'a.tar')})
    expect(await source.resolve()).toEqual(root)
  })
})

describe('docker-archive:', () => {
  it('holds decompressed layers under their DiffIDs', async () => {
    const directory = await temporaryDirectory()
    const path = join(directory, 'a.tar')
    await writeDocker(path, NAME)
    await using source = await openDockerArchiveSource({path, reference: NAME})
    const manifest = JSON.parse((await readBlob(source.content, await source.resolve())).toString())
    const config = JSON.parse((await readBlob(source.content, manifest.config)).toString())
    expect(manifest.layers.map((layer: {digest: string}) => layer.digest)).toEqual(config.rootfs.diff_ids)
    for (const layer of manifest.layers) await readBlob(source.content, layer)
  })

  it('is the same image whether its source was compressed or not', async () => {
    const directory = await temporaryDirectory()
    await writeDocker(join(directory, 'a.tar'), NAME, {compression: 'gzip'})
    await writeDocker(join(directory, 'b.tar'), NAME, {compression: 'none'})
    expect(await readFile(join(directory, 'a.tar'))).toEqual(await readFile(join(directory, 'b.tar')))
  })

  it('holds a layer once that an image has twice', async () => {
    const path = join(await temporaryDirectory(), 'a.tar')
    await writeDocker(path, NAME, {layers: [{x: 'x'}, {y: 'y'}, {x: 'x'}]})
    await using source = await openDockerArchiveSource({path})
    const manifest = JSON.parse((await readBlob(source.content, await source.resolve())).toString())
    expect(manifest.layers).toHaveLength(3)
    expect(manifest.layers[2]).toEqual(manifest.layers[0])
  })

  it('is not changed once it is there', async () => {
    const path = join(await temporaryDirectory(), 'a.tar')
    await writeDocker(path, NAME)
    await expect(openDockerArchiveTarget({path})).rejects.toMatchObject({code: 'already-exists'})
  })

  it('takes one platform', async () => {
    await using target = await openDockerArchiveTarget({path: join(await temporaryDirectory(), 'a.tar')})
    const {root} = await writeSampleIndex(target.content, ['amd64', 'arm64'])
    await expect(target.publish(root)).rejects.toMatchObject({code: 'unsupported'})
  })

  it('names what it holds when asked for another image', async () => {
    const path = join(await temporaryDirectory(), 'a.tar')
    await writeDocker(path, NAME)
    const open = async (image: {reference?: string; imageIndex?: number}) => {
      await using source = await openDockerArchiveSource({path, ...image})
      return await source.resolve()
    }
    await open({imageIndex: 0})
    await expect(open({imageIndex: 1})).rejects.toMatchObject({code: 'not-found'})
    await expect(open({reference: 'docker.io/library/other:1'})).rejects.toThrow(/it holds .*sample:1/)
  })
})

describe('an archive of several images', () => {
  it('gives them back with their names', async () => {
    const directory = await temporaryDirectory()
    const path = join(directory, 'a.tar')
    const roots: unknown[] = []
    {
      await using archive = await createArchive(path)
      for (const text of ['1', '2']) {
        const {root} = await writeSampleImage(archive.content, {layers: [{text}]})
        await archive.target(`example.com/app:${text}`).publish(root)
        roots.push(root.digest)
      }
      await archive.finish()
    }
    for (const format of ['oci', 'docker'] as const) {
      await using archive = await openArchive(path, {format})
      expect(archive.images.map(image => image.names)).toEqual([['example.com/app:1'], ['example.com/app:2']])
      if (format === 'oci') expect(archive.images.map(image => image.target.digest)).toEqual(roots)
    }
  })

  it('without images is not written', async () => {
    const directory = await temporaryDirectory()
    {
      await using archive = await createArchive(join(directory, 'a.tar'))
      await expect(archive.finish()).rejects.toMatchObject({code: 'failed-precondition'})
    }
    expect(await readdir(directory)).toEqual([])
  })

  it('has a manifest.json for the present platform of an index, or none at all', async () => {
    const directory = await temporaryDirectory()
    for (const skipManifestJson of [false, true]) {
      const path = join(directory, `${skipManifestJson}.tar`)
      await using archive = await createArchive(path, {skipManifestJson})
      const {root} = await writeSampleIndex(archive.content, ['amd64', 'arm64'])
      await archive.target(NAME).publish(root)
      await archive.finish()
      const members = execFileSync('tar', ['tf', path]).toString().split('\n')
      expect(members.includes('manifest.json')).toBe(!skipManifestJson)
    }
  })

  it('names imported images in full', () => {
    const target = {mediaType: '', digest: `sha256:${'a'.repeat(64)}`, size: 1} as never
    const check = (names: readonly string[], baseName: string | undefined) =>
      importedNames({names, target}, {baseName, fallbackName: 'import'})
    expect(check(['example.com/app:1'], 'base')).toEqual(['example.com/app:1'])
    expect(check(['redis:7'], undefined)).toEqual(['docker.io/library/redis:7'])
    expect(check(['v1'], 'ghcr.io/o/app')).toEqual(['ghcr.io/o/app:v1'])
    expect(check(['v1'], undefined)).toEqual(['docker.io/library/import:v1'])
    expect(check([], 'ghcr.io/o/app')).toEqual([`ghcr.io/o/app@sha256:${'a'.repeat(64)}`])
  })
})

describeWith(['skopeo'], 'archives and skopeo', () => {
  const run = (...args: string[]) => execFileSync('skopeo', args, {stdio: ['ignore', 'pipe', 'pipe']})

  it('read each other in both formats', async () => {
    const directory = await temporaryDirectory()
    const file = (name: string) => join(directory, name)
    const {root} = await writeOci(file('ours.oci'), 'v1')
    run('copy', `oci-archive:${file('ours.oci')}:v1`, `oci-archive:${file('theirs.oci')}:v2`)
    await using oci = await openOciArchiveSource({path: file('theirs.oci'), tag: 'v2'})
    expect((await oci.resolve()).digest).toBe(root.digest)

    run('copy', `oci-archive:${file('ours.oci')}:v1`, `docker-archive:${file('theirs.docker')}:sample:1`)
    // skopeo writes a link per layer beside its tar.
    const theirs = await openDockerArchiveSource({path: file('theirs.docker'), reference: NAME})
    await copy(theirs, await openDockerArchiveTarget({path: file('ours.docker'), reference: NAME}))
    const inspected = JSON.parse(run('inspect', `docker-archive:${file('ours.docker')}:sample:1`).toString())
    expect(inspected.Layers).toHaveLength(2)
    run('copy', `docker-archive:${file('ours.docker')}:sample:1`, `oci:${file('layout')}:v1`)
  })

  it('an exported archive is both to skopeo', async () => {
    const path = join(await temporaryDirectory(), 'a.tar')
    await using store = await openLocalStore(await temporaryDirectory())
    const {root} = await writeSampleImage(store.content)
    await store.images.put(NAME, root)
    await using archive = await createArchive(path)
    await copyImage(
      {name: NAME, content: store.content, resolve: async () => root, async [Symbol.asyncDispose]() {}},
      archive.target(NAME),
      {platforms: 'all', index: 'sparse'},
    )
    await archive.finish()
    expect((await stat(path)).isFile()).toBe(true)
    expect(JSON.parse(run('inspect', `oci-archive:${path}:1`).toString())).toMatchObject({
      Digest: root.digest,
    })
    expect(JSON.parse(run('inspect', `docker-archive:${path}:${NAME}`).toString()).Layers).toHaveLength(2)
  })
})
