import {readdirSync, readlinkSync} from 'node:fs'
import {
  type FileHandle,
  mkdir,
  open as openFile,
  readdir,
  readFile,
  rename,
  rm,
  rmdir,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises'
import {join, relative} from 'node:path'
import {setImmediate} from 'node:timers/promises'
import {describe, expect, it, onTestFinished, vi} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import type {LayerCache, LayerRecord} from '../../src/lib/layer/ports.ts'
import {openLayerCache} from '../../src/lib/layer-cache/layer-cache.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const record = (text: string): LayerRecord => ({
  blobDigest: digestOf(text),
  blobSize: 1000,
  tail: Buffer.from(text),
  externalToc: undefined,
})
const SIZE = {deviceSize: 8192, chunkCount: 2}
const LARGE = {deviceSize: 131_072, chunkCount: 1}

/** Whatever this machine's disk is like. */
const diskSpace = () => ({total: 1 << 30, free: 1 << 30})

async function open(root: string, maxSize = 0) {
  return openLayerCache({root, maxSize, bootId: 'boot', diskSpace})
}

/** How many entries a directory has, if it is there. */
function countIn(directory: string): number | undefined {
  try {
    return readdirSync(directory).length
  } catch {
    return undefined
  }
}

/** Adds layers of 128 KiB, and uses each for a moment. */
async function addUsed(cache: LayerCache, keys: readonly string[]): Promise<void> {
  for (const key of keys) {
    await cache.add(key, record(key))
    const data = await cache.open(key, LARGE)
    await data.write(0, [Buffer.alloc(LARGE.deviceSize, 1)])
    await data[Symbol.asyncDispose]()
  }
}

describe('the cache of layers', () => {
  it('keeps files that are added with a layer, or none of it', async () => {
    const root = await temporaryDirectory()
    const cache = await open(root)
    const image = Buffer.from('an image')
    await cache.add('a1', record('one'), new Map([['tree', image]]))
    expect(await cache.hasFile('a1', 'tree')).toBe(true)
    const path = await cache.file('a1', 'tree', () => Promise.reject(new Error('made again')))
    expect(await readFile(path)).toEqual(image)
    // A layer that is there keeps its own, and gets no others.
    await cache.add('a1', record('one'), new Map([['other', image]]))
    expect(await cache.hasFile('a1', 'other')).toBe(false)
    await expect(cache.add('b2', record('two'), new Map([['no/such', image]]))).rejects.toThrow('no/such')
    expect(await cache.find('b2')).toBeUndefined()
    expect(countIn(root)).toBe(1)
  })

  it('keeps what a layer needs to be opened again, across restarts', async () => {
    const root = await temporaryDirectory()
    const first = await open(root)
    expect(await first.find('a1')).toBeUndefined()
    await first.add('a1', {...record('one'), externalToc: Buffer.from('toc')})
    await first.add('a1', record('another of the same key'))
    const second = await open(root)
    expect(await second.find('a1')).toMatchObject({
      blobDigest: digestOf('one'),
      blobSize: 1000,
      tail: Buffer.from('one'),
      externalToc: Buffer.from('toc'),
    })
    expect(second.hasBlob(digestOf('one'))).toBe(true)
    expect(second.hasBlob(digestOf('two'))).toBe(false)
  })

  it('keeps chunks that were noted, and none that were only written', async () => {
    const root = await temporaryDirectory()
    const cache = await open(root)
    await cache.add('a1', record('one'))
    const data = await cache.open('a1', SIZE)
    await data.write(4096, [Buffer.from('abc'), Buffer.from('def')])
    await data.write(0, [Buffer.from('x')])
    data.note([1])
    await data[Symbol.asyncDispose]()
    await using again = await (await open(root)).open('a1', SIZE)
    expect([again.chunks.has(0), again.chunks.has(1)]).toEqual([false, true])
    expect(Buffer.from(await again.read(4094, 8)).toString('latin1')).toBe('\0\0abcdef')
  })

  it('believes no data of another size than the layer has', async () => {
    const root = await temporaryDirectory()
    const cache = await open(root)
    await cache.add('a1', record('one'))
    const data = await cache.open('a1', SIZE)
    await data.write(0, [Buffer.alloc(8192, 1)])
    data.note([0, 1])
    await data[Symbol.asyncDispose]()
    await truncate(join(root, 'a1', 'data'), 100)
    await using again = await cache.open('a1', SIZE)
    expect(again.chunks.count()).toBe(0)
    expect(await again.read(0, 8192)).toEqual(Buffer.alloc(8192))
  })

  it('lets nobody use data that have been disposed, least of all by their old descriptor', async () => {
    const root = await temporaryDirectory()
    const cache = await open(root)
    await cache.add('a1', record('one'))
    const data = await cache.open('a1', SIZE)
    const before = await readFile(data.path)
    await data[Symbol.asyncDispose]()
    await data[Symbol.asyncDispose]()
    const closed = {code: 'internal', message: expect.stringContaining('it is closed')}
    await expect(data.withFd(async fd => fd)).rejects.toMatchObject(closed)
    expect(() => data.note([0])).toThrow(expect.objectContaining(closed))
    await expect(data.read(0, 1)).rejects.toMatchObject(closed)
    await expect(data.write(0, [Buffer.from('x')])).rejects.toMatchObject(closed)
    await expect(data.sync()).rejects.toMatchObject(closed)
    expect(await readFile(data.path)).toEqual(before)
  })

  it('closes no descriptor that somebody writes by', async () => {
    const root = await temporaryDirectory()
    const cache = await open(root)
    await cache.add('a1', record('one'))
    const data = await cache.open('a1', SIZE)
    const writing = Promise.withResolvers<void>()
    let seen = ''
    const written = data.withFd(async fd => {
      await writing.promise
      seen = readlinkSync(`/proc/self/fd/${fd}`)
    })
    let isDisposed = false
    const disposing = data[Symbol.asyncDispose]().then(() => {
      isDisposed = true
    })
    await setImmediate()
    expect(isDisposed).toBe(false)
    writing.resolve()
    await Promise.all([written, disposing])
    expect(seen).toBe(data.path)
  })

  it('waits for the disk only to sync, and then syncs all that the data need', async () => {
    const root = await temporaryDirectory()
    const synced: string[] = []
    const handle = await openFile('/dev/null')
    await handle.close()
    const handles = Object.getPrototypeOf(handle) as FileHandle
    for (const method of ['sync', 'datasync'] as const) {
      const whole = handles[method]
      const spied = vi.spyOn(handles, method).mockImplementation(function (this: FileHandle) {
        synced.push(relative(root, readlinkSync(`/proc/self/fd/${this.fd}`)))
        return whole.call(this)
      })
      onTestFinished(() => spied.mockRestore())
    }
    const cache = await open(root)
    await cache.add('a1', {...record('one'), externalToc: Buffer.from('toc')})
    await cache.file('a1', 'image', async () => Buffer.from('image'))
    await using data = await cache.open('a1', SIZE)
    data.note([0])
    expect(synced).toEqual([])
    await data.sync()
    const beside = ['external-toc', 'image', 'image.sum', 'record.json', 'tail'].map(name => `a1/${name}`)
    expect(synced.slice(0, 5).sort()).toEqual(beside)
    expect(synced.slice(5)).toEqual(['a1', '', 'a1/data', 'a1/journal', 'a1/journal.mark.new', 'a1'])
  })

  it('syncs again after a sync that failed', async () => {
    const root = await temporaryDirectory()
    const cache = await open(root)
    await cache.add('a1', record('one'))
    await using data = await cache.open('a1', SIZE)
    data.note([0])
    const inTheWay = join(root, 'a1', 'journal.mark.new')
    await mkdir(inTheWay)
    await expect(data.sync()).rejects.toMatchObject({code: 'EISDIR'})
    await rmdir(inTheWay)
    await data.sync()
    expect(JSON.parse(await readFile(join(root, 'a1', 'journal.mark'), 'utf8'))).toMatchObject({synced: 1})
  })

  it('takes a damaged record for none, and removes it', async () => {
    const root = await temporaryDirectory()
    const cache = await open(root)
    for (const text of ['{', '{}', '{"blobDigest":"x","blobSize":1}', '{"blobDigest":1,"blobSize":-1}']) {
      await cache.add('a1', record('one'))
      await writeFile(join(root, 'a1', 'record.json'), text)
      expect(await cache.find('a1')).toBeUndefined()
      expect(await readdir(root)).toEqual([])
    }
  })

  it('sweeps what a crash has left half-made', async () => {
    const root = await temporaryDirectory()
    await mkdir(join(root, 'new-abc'))
    await writeFile(join(root, 'new-abc', 'tail'), 'x')
    await open(root)
    expect(await readdir(root)).toEqual([])
  })

  it('makes a file that goes with a layer once', async () => {
    const cache = await open(await temporaryDirectory())
    await cache.add('a1', record('one'))
    let made = 0
    const make = async () => Buffer.from(`made ${++made}`)
    const [path] = await Promise.all([cache.file('a1', 'image', make), cache.file('a1', 'image', make)])
    expect(await cache.file('a1', 'image', make)).toBe(path)
    expect(made).toBe(1)
  })

  it('makes a file again that the end of the last boot has damaged', async () => {
    const root = await temporaryDirectory()
    const bytes = Buffer.alloc(20_000, 7)
    const first = await open(root)
    await first.add('a1', record('one'))
    const path = await first.file('a1', 'image', async () => bytes)
    expect(await first.hasFile('a1', 'image')).toBe(true)
    const holey = Buffer.concat([Buffer.alloc(4096), bytes.subarray(4096)])
    for (const [boot, damaged] of [Buffer.alloc(0), bytes.subarray(0, 4096), holey].entries()) {
      await writeFile(path, damaged)
      const cache = await openLayerCache({root, maxSize: 0, bootId: `boot ${boot}`, diskSpace})
      expect(await cache.hasFile('a1', 'image')).toBe(false)
      expect(await cache.file('a1', 'image', async () => bytes)).toBe(path)
      expect(await readFile(path)).toEqual(bytes)
    }
    await writeFile(`${path}.sum`, '')
    expect(await first.hasFile('a1', 'image')).toBe(false)
  })

  it('keeps a sound file across boots, and does not read it in its own', async () => {
    const root = await temporaryDirectory()
    const cache = await open(root)
    await cache.add('a1', record('one'))
    const path = await cache.file('a1', 'image', async () => Buffer.from('made'))
    const never = () => Promise.reject(new Error('made again'))
    const later = await openLayerCache({root, maxSize: 0, bootId: 'later', diskSpace})
    expect(await later.file('a1', 'image', never)).toBe(path)
    await writeFile(path, 'else')
    expect(await later.hasFile('a1', 'image')).toBe(false)
    expect(await cache.hasFile('a1', 'image')).toBe(true)
  })

  it('makes a file again after it could not be made, and leaves no half', async () => {
    const root = await temporaryDirectory()
    const cache = await open(root)
    await cache.add('a1', record('one'))
    await expect(cache.file('a1', 'image', () => Promise.reject(new Error('no')))).rejects.toThrow('no')
    await mkdir(join(root, 'a1', 'image'))
    await expect(cache.file('a1', 'image', async () => Buffer.from('x'))).rejects.toThrow('EISDIR')
    await rmdir(join(root, 'a1', 'image'))
    expect((await readdir(join(root, 'a1'))).sort()).toEqual(['record.json', 'tail'])
    expect(await readFile(await cache.file('a1', 'image', async () => Buffer.from('x')), 'utf8')).toBe('x')
  })

  it('removes a layer whose tail or TOC lost bytes', async () => {
    const root = await temporaryDirectory()
    const cache = await open(root)
    for (const name of ['tail', 'external-toc']) {
      await cache.add('a1', {...record('one'), externalToc: Buffer.from('toc')})
      await truncate(join(root, 'a1', name), 1)
      expect(await cache.find('a1')).toBeUndefined()
      expect(await readdir(root)).toEqual([])
    }
  })

  it('adds a layer in the place of one that lost some of its files', async () => {
    const root = await temporaryDirectory()
    const full = {...record('one'), externalToc: Buffer.from('toc')}
    for (const name of ['record.json', 'tail', 'external-toc']) {
      const cache = await open(root)
      await cache.add('a1', full)
      await (await cache.open('a1', SIZE))[Symbol.asyncDispose]()
      await rm(join(root, 'a1', name))
      expect(await cache.find('a1')).toBeUndefined()
      await cache.add('a1', full)
      expect(await cache.find('a1')).toEqual(full)
      await (await cache.open('a1', SIZE))[Symbol.asyncDispose]()
      expect(await readdir(root)).toEqual(['a1'])
    }
    await writeFile(join(root, 'b2'), 'no directory')
    const cache = await open(root)
    await cache.add('b2', full)
    expect(await cache.find('b2')).toEqual(full)
  })

  it('does not take data away from who uses them, however damaged their record is', async () => {
    const root = await temporaryDirectory()
    const cache = await open(root)
    await cache.add('a1', record('one'))
    await using data = await cache.open('a1', SIZE)
    await rm(join(root, 'a1', 'record.json'))
    await cache.remove('a1')
    await expect(cache.add('a1', record('one'))).rejects.toMatchObject({code: 'failed-precondition'})
    await data.write(0, [Buffer.from('x')])
    expect((await readFile(join(root, 'a1', 'data'))).subarray(0, 1).toString()).toBe('x')
    expect(await readdir(root)).toEqual(['a1'])
  })

  it('removes a layer at once, so that a crash never leaves half of one', async () => {
    const root = await temporaryDirectory()
    const cache = await open(root)
    await cache.add('a1', record('one'))
    for (let file = 0; file < 200; file++) await writeFile(join(root, 'a1', `f${file}`), '')
    const all = countIn(join(root, 'a1'))!
    let isRemoved = false
    const removed = cache.remove('a1').finally(() => {
      isRemoved = true
    })
    const seen = new Set<number>()
    while (!isRemoved) {
      seen.add(countIn(join(root, 'a1')) ?? all)
      await setImmediate()
    }
    await removed
    expect([...seen].filter(count => count !== all)).toEqual([])
    expect(await readdir(root)).toEqual([])
  })

  it('removes nothing because it could not be read', async () => {
    const root = await temporaryDirectory()
    const cache = await open(root)
    await addUsed(cache, ['a1'])
    const path = join(root, 'a1', 'record.json')
    await rename(path, `${path}.away`)
    await symlink('record.json', path)
    await expect(cache.find('a1')).rejects.toMatchObject({
      code: 'internal',
      message: expect.stringContaining('ELOOP'),
    })
    const again = await open(root, 1)
    expect(again.hasBlob(digestOf('a1'))).toBe(false)
    await rm(path)
    await rename(`${path}.away`, path)
    expect(await again.find('a1')).toEqual(record('a1'))
    expect(await readdir(join(root, 'a1'))).toContain('data')
  })

  it('makes room while layers are added and removed, and disturbs none of them', async () => {
    const root = await temporaryDirectory()
    let time = 0
    const cache = await openLayerCache({root, maxSize: 300_000, bootId: 'boot', now: () => time, diskSpace})
    for (const round of [1, 2, 3]) {
      const keys = Array.from({length: 12}, (_, index) => `k${round}-${index}`)
      await Promise.all(keys.map(key => addUsed(cache, [key])))
      await Promise.all([...keys.slice(6).map(key => cache.remove(key)), cache.add(`x${round}`, record('x'))])
      time += 400_000
    }
    await cache.add('last', record('last'))
    const left = await readdir(root)
    expect(left.filter(name => name.startsWith('new-'))).toEqual([])
    expect(left.filter(name => name.startsWith('k')).length).toBeLessThanOrEqual(2)
  })

  it('keeps what was asked for until it is opened, but not for ever', async () => {
    const root = await temporaryDirectory()
    await addUsed(await open(root), ['found', 'idle'])
    let time = 0
    const cache = await openLayerCache({root, maxSize: 1, bootId: 'boot', now: () => time, diskSpace})
    time = 60_000
    await cache.find('found')
    await cache.add('added', record('added'))
    expect((await readdir(root)).sort()).toEqual(['added', 'found'])
    expect([cache.hasBlob(digestOf('found')), cache.hasBlob(digestOf('idle'))]).toEqual([true, false])
    await cache.add('next', record('next'))
    await (await cache.open('found', LARGE))[Symbol.asyncDispose]()
    await cache.add('another', record('another'))
    expect((await readdir(root)).sort()).toEqual(['added', 'another', 'next'])
    time = 360_000
    await cache.add('last', record('last'))
    expect(await readdir(root)).toEqual(['last'])
    await cache.remove('last')
    expect(cache.hasBlob(digestOf('last'))).toBe(false)
  })

  it('keeps for a minute what was there when it was opened, for mounts that are restored', async () => {
    const root = await temporaryDirectory()
    await addUsed(await open(root), ['a', 'b'])
    let time = 0
    const cache = await openLayerCache({root, maxSize: 1, bootId: 'boot', now: () => time, diskSpace})
    await using _restored = await cache.open('a', LARGE)
    await cache.add('c', record('c'))
    expect((await readdir(root)).sort()).toEqual(['a', 'b', 'c'])
    time = 60_000
    await cache.add('d', record('d'))
    expect((await readdir(root)).sort()).toEqual(['a', 'c', 'd'])
  })

  it('lets go of all that nobody uses, when it is told to, and says what that took', async () => {
    const root = await temporaryDirectory()
    const cache = await open(root)
    await addUsed(cache, ['a', 'b', 'c'])
    await cache.add('asked', record('asked'))
    await using _held = await cache.open('a', LARGE)
    const {layers, bytes} = await cache.prune()
    expect(layers).toBe(2)
    expect(bytes).toBeGreaterThan(0)
    expect((await readdir(root)).sort()).toEqual(['a', 'asked'])
    expect(await cache.prune()).toEqual({layers: 0, bytes: 0})
  })

  it('makes room by removing what was used longest ago and is not in use', async () => {
    const root = await temporaryDirectory()
    const cache = await open(root, 300_000)
    const lastUsed = async (key: string, seconds: number) =>
      utimes(join(root, key, 'record.json'), seconds, seconds)
    await addUsed(cache, ['a', 'b', 'c'])
    for (const [index, key] of ['a', 'b', 'c'].entries()) await lastUsed(key, 1000 + index)
    await using _held = await cache.open('a', LARGE)
    await lastUsed('a', 1)
    await cache.add('d', record('d'))
    expect((await readdir(root)).sort()).toEqual(['a', 'c', 'd'])
  })

  it('holds its limit when the last user of a layer is gone, without waiting for the next layer', async () => {
    const root = await temporaryDirectory()
    const cache = await open(root, 300_000)
    await addUsed(cache, ['a'])
    const held = await Promise.all(
      ['b', 'c'].map(async key => {
        await cache.add(key, record(key))
        const data = await cache.open(key, LARGE)
        await data.write(0, [Buffer.alloc(LARGE.deviceSize, 1)])
        return data
      }),
    )
    await expect(cache.requireRoom()).resolves.toBeUndefined()
    expect((await readdir(root)).sort()).toEqual(['b', 'c'])
    await addUsed(cache, ['d'])
    for (const data of held) await data[Symbol.asyncDispose]()
    await cache.tidy()
    expect(await readdir(root)).toHaveLength(2)
  })

  it('lets nothing be fetched ahead while what is in use takes all of its limit', async () => {
    const root = await temporaryDirectory()
    const cache = await open(root, 100_000)
    await cache.add('a', record('a'))
    await using data = await cache.open('a', LARGE)
    await expect(cache.requireRoom()).resolves.toBeUndefined()
    await data.write(0, [Buffer.alloc(LARGE.deviceSize, 1)])
    await expect(cache.requireRoom()).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/all that "directory_cache.max_size_mb" allows/),
    })
  })

  it('removes layers that nobody uses while less than a fifth of the disk is free', async () => {
    const root = await temporaryDirectory()
    const disk = {total: 1_000_000, free: 200_000}
    const cache = await openLayerCache({root, maxSize: 0, bootId: 'boot', diskSpace: () => disk})
    await addUsed(cache, ['a', 'b', 'c'])
    await utimes(join(root, 'b', 'record.json'), 1000, 1000)
    await using _held = await cache.open('a', LARGE)
    await cache.tidy()
    expect(await readdir(root)).toHaveLength(3)
    disk.free = 100_000
    await cache.tidy()
    expect((await readdir(root)).sort()).toEqual(['a', 'c'])
    disk.free = 0
    await cache.tidy()
    expect(await readdir(root)).toEqual(['a'])
  })

  it('lets nothing be fetched ahead into the tenth of the disk that is kept for others', async () => {
    const root = await temporaryDirectory()
    const disk = {total: 1_000_000, free: 100_001}
    const cache = await openLayerCache({root, maxSize: 0, bootId: 'boot', diskSpace: () => disk})
    expect(cache.spareRoom()).toBe(1)
    await expect(cache.requireRoom()).resolves.toBeUndefined()
    disk.free = 100_000
    await expect(cache.requireRoom()).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/^Cannot fetch ahead: the disk of ".*" is nearly full$/),
    })
  })
})
