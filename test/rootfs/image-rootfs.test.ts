import {execFileSync} from 'node:child_process'
import {mkdirSync} from 'node:fs'
import {lstat, mkdir, readdir, readFile, readlink, stat} from 'node:fs/promises'
import {join} from 'node:path'
import {gzipSync} from 'node:zlib'
import {expect, it, onTestFinished} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {unmountBelow} from '../../src/lib/mount/mounts.ts'
import {type ImageRootfs, mountImageRootfs} from '../../src/lib/rootfs/image-rootfs.ts'
import {MANY_FILES} from '../../src/lib/tar/memory-care.ts'
import {type RunnableImage, runnableImage} from '../support/busybox-image.ts'
import {describeWith} from '../support/requires.ts'
import {archive, directory, member, pax} from '../support/tar.ts'
import {temporaryDirectory} from '../support/temporary.ts'

/** Where layers are unpacked: on an overlayfs, below which EROFS cannot be stacked. */
async function overlayDirectory(): Promise<string> {
  const base = await temporaryDirectory()
  onTestFinished(() => unmountBelow(base))
  for (const name of ['lower', 'disk', 'merged']) mkdirSync(join(base, name))
  execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', join(base, 'disk')])
  for (const name of ['upper', 'work']) mkdirSync(join(base, 'disk', name))
  const data = `lowerdir=${base}/lower,upperdir=${base}/disk/upper,workdir=${base}/disk/work`
  execFileSync('mount', ['-t', 'overlay', '-o', data, 'overlay', join(base, 'merged')])
  return join(base, 'merged')
}

async function mounted(image: RunnableImage, base: string): Promise<ImageRootfs> {
  const target = join(base, 'image')
  await mkdir(target)
  onTestFinished(() => unmountBelow(target))
  return mountImageRootfs(image, target)
}

const PLACES = {'mounted in place': temporaryDirectory, unpacked: overlayDirectory} as const

/** Each path of a tree with what `lstat`, `readlink`, `getfattr` and reading say of it. */
async function describeTree(root: string, path = '', lines: Record<string, string> = {}) {
  for (const name of (await readdir(join(root, path))).sort()) {
    const at = join(path, name)
    const status = await lstat(join(root, at), {bigint: true})
    const content = status.isSymbolicLink()
      ? `-> ${await readlink(join(root, at))}`
      : status.isFile()
        ? digestOf(await readFile(join(root, at)))
        : String(status.rdev)
    const fields = [status.mode.toString(8), status.uid, status.gid, status.mtimeNs, content]
    lines[at] = fields.join(' ')
    if (status.isDirectory()) await describeTree(root, at, lines)
  }
  return lines
}

const BINARY = Uint8Array.of(1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)

const RICH = [
  archive(
    directory('./'),
    member({name: 'set/', typeflag: '5', mode: 0o3775, uid: 12, gid: 34, mtime: 1_000_000_000}),
    pax({uid: '3000000', mtime: '-5.25'}),
    member({name: 'set/uid', mode: 0o4755, gid: 7}, 'x'.repeat(5000)),
    member({name: 'set/link', typeflag: '1', linkName: 'set/uid'}),
    member({name: 'soft', typeflag: '2', linkName: '/set/uid', uid: 5}),
    member({name: 'dangling', typeflag: '2', linkName: '../../../../etc/none'}),
    member({name: 'null', typeflag: '3', devMajor: 1, devMinor: 3, mode: 0o666}),
    member({name: 'disk', typeflag: '4', devMajor: 259, devMinor: 70_000 % 4096, mode: 0o600}),
    member({name: 'pipe', typeflag: '6', mode: 0o622}),
    pax({'SCHILY.xattr.security.capability': BINARY}),
    member({name: 'capable', mode: 0o755}, 'c'),
    member({name: 'empty'}),
    member({name: 'gone/a'}, '1'),
    member({name: 'gone/b'}, '2'),
    member({name: 'hollow/a'}, '1'),
    member({name: 'twice'}, 'first'),
    member({name: 'twice'}, 'second'),
    pax({path: `${'long/'.repeat(60)}name`}),
    member({name: 'x'}, 'deep'),
  ),
  archive(
    member({name: '.wh.gone'}),
    member({name: 'hollow/.wh..wh..opq'}),
    member({name: 'hollow/c'}, '3'),
    member({name: '.wh.empty'}),
    member({name: 'empty'}, 'full'),
    member({name: 'set/more', mode: 0}, 'y'),
  ),
]

describeWith(['root', 'getfattr'], 'an image as a root file system', () => {
  for (const [name, place] of Object.entries(PLACES)) {
    const inPlace = name === 'mounted in place'

    it(`has everything that its layers have, ${name}`, async () => {
      const rootfs = await mounted(await runnableImage(RICH), await place())
      expect(rootfs.inPlace).toBe(inPlace)
      const tree = await describeTree(rootfs.path)
      expect(tree.set).toMatch(/^43775 12 34 1000000000000000000 /)
      expect(tree['set/uid']).toBe(`104755 3000000 7 -5250000000 ${digestOf('x'.repeat(5000))}`)
      expect(tree['set/link']).toBe(tree['set/uid'])
      expect(tree.soft).toBe('120777 5 0 0 -> /set/uid')
      expect(tree.dangling).toContain('-> ../../../../etc/none')
      expect(tree.null).toMatch(/^20666 0 0 0 259$/)
      expect(tree.disk).toMatch(/^60600 /)
      expect(tree.pipe).toMatch(/^10622 /)
      expect(tree.twice).toContain(digestOf('second'))
      expect(tree[`${'long/'.repeat(60)}name`]).toContain(digestOf('deep'))
      const links = await Promise.all(['set/uid', 'set/link'].map(path => stat(join(rootfs.path, path))))
      expect(links[0]!.nlink).toBe(2)
      const capability = execFileSync(
        'getfattr',
        ['--only-values', '-n', 'security.capability', join(rootfs.path, 'capable')],
        {stdio: 'pipe'},
      )
      expect(Uint8Array.from(capability)).toEqual(BINARY)
    })

    it(`has nothing that its layers hide, ${name}`, async () => {
      const {path} = await mounted(await runnableImage(RICH), await place())
      const names = Object.keys(await describeTree(path)).filter(at => !at.startsWith('long'))
      expect(names).not.toContain('gone')
      expect(names.filter(at => at.startsWith('hollow'))).toEqual(['hollow', 'hollow/c'])
      expect(names.filter(at => at.includes('.wh.'))).toEqual([])
      expect(await readFile(join(path, 'empty'), 'utf8')).toBe('full')
    })

    it(`keeps hostile layers within itself, ${name}`, async () => {
      const base = await place()
      const hostile = [
        archive(
          member({name: 'out', typeflag: '2', linkName: base}),
          member({name: 'out/escaped'}, '1'),
          member({name: 'up', typeflag: '2', linkName: '../../../../../../../../..'}),
          member({name: `up${base}/climbed`}, '2'),
          member({name: '/absolute'}, '3'),
          member({name: 'hard', typeflag: '1', linkName: '/absolute'}),
        ),
        archive(member({name: 'out/again'}, '4')),
      ]
      const {path} = await mounted(await runnableImage(hostile), base)
      expect(await readdir(base)).toEqual(['image'])
      expect(await readFile(join(path, base, 'escaped'), 'utf8')).toBe('1')
      expect(await readFile(join(path, base, 'climbed'), 'utf8')).toBe('2')
      // containerd unpacks every layer for itself: a name of this one does not go through links of the one below.
      expect(await readFile(join(path, 'out', 'again'), 'utf8')).toBe('4')
      expect(await readFile(join(path, 'hard'), 'utf8')).toBe('3')
    })
  }

  it('says when a layer has very many files, and when all of them have been placed', async () => {
    const files = Array.from({length: MANY_FILES}, (_, index) => member({name: `many/${index}`}))
    const image = await runnableImage([archive(member({name: 'one'})), archive(...files)])
    const base = await temporaryDirectory()
    onTestFinished(() => unmountBelow(base))
    const said: string[] = []
    const memoryCare = {
      foundManyFiles: () => void said.push('found'),
      plannedManyFiles: () => void said.push('planned'),
    }
    await mountImageRootfs(image, base, {memoryCare})
    expect(said).toEqual(['found', 'planned'])
  })

  it('is the same either way', async () => {
    const image = await runnableImage(RICH)
    const trees = []
    for (const place of Object.values(PLACES)) {
      trees.push(await describeTree((await mounted(image, await place())).path))
    }
    // The root of an unpacked stack has the time of its making.
    expect(trees[1]).toEqual(trees[0])
  })

  it('may have no layers at all', async () => {
    const {path} = await mounted(await runnableImage([]), await temporaryDirectory())
    expect(await readdir(path)).toEqual([])
  })

  const refuse = (name: string, tar: Uint8Array, code: string, message: string) =>
    it(`refuses ${name}`, async () => {
      const image = await runnableImage([tar])
      await expect(mounted(image, await temporaryDirectory())).rejects.toMatchObject({
        code,
        message: expect.stringContaining(message),
      })
    })

  refuse(
    'a hard link to nothing',
    archive(member({name: 'a', typeflag: '1', linkName: 'b'})),
    'corrupt',
    '"b"',
  )
  refuse(
    'a tar that is cut short',
    archive(member({name: 'a'}, 'x'.repeat(2000))).subarray(0, 1500),
    'corrupt',
    'ends',
  )
  refuse(
    'names through a loop of links',
    archive(member({name: 'a', typeflag: '2', linkName: 'a'}), member({name: 'a/b'})),
    'corrupt',
    'loop',
  )

  it('refuses a blob that is not what its descriptor says', async () => {
    const tar = archive(member({name: 'a'}, 'a'))
    const image = await runnableImage([tar])
    const layer = image.manifest.layers[0]!
    const blobs = image.content.blobs as Map<typeof layer.digest, Uint8Array>
    const damaged = gzipSync(tar, {level: 9})
    damaged[20]! ^= 1
    blobs.set(layer.digest, damaged)
    await expect(mounted(image, await temporaryDirectory())).rejects.toMatchObject({code: 'corrupt'})
  })

  it('refuses a layer of an unknown kind', async () => {
    const image = await runnableImage([archive()])
    const layers = image.manifest.layers.map(layer => ({...layer, mediaType: 'application/x-unknown'}))
    const changed = {...image, manifest: {...image.manifest, layers}}
    await expect(mounted(changed, await temporaryDirectory())).rejects.toMatchObject({code: 'unsupported'})
  })
})
