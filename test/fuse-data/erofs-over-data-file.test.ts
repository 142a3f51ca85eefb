// A layer as the kernel sees it: an EROFS image of metadata over a lazily served data file.

import {execFile, spawn} from 'node:child_process'
import {once} from 'node:events'
import {mkdirSync, readFileSync, writeFileSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {promisify} from 'node:util'
import {expect, it, onTestFinished} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {encodeErofs} from '../../src/lib/erofs/encode-image.ts'
import {canMountErofs, mountErofs} from '../../src/lib/mount/mount-erofs.ts'
import {MNT_DETACH, unmount} from '../../src/lib/native/system-calls.ts'
import {type DirectoryNode, type FileNode, plainDirectory} from '../../src/lib/vfs/file-tree.ts'
import {describeWith} from '../support/requires.ts'
import {BLOCK, createLazyFile, noise, serveDataFiles} from './lazy-file.ts'

const run = promisify(execFile)

/** Files side by side at aligned places of one device: the device's bytes, and the tree. */
function layOut(contents: Readonly<Record<string, Buffer>>): {data: Buffer; root: DirectoryNode} {
  const root = plainDirectory()
  const {children, ...plain} = root
  const parts: Buffer[] = []
  let dataOffset = 0
  for (const [name, content] of Object.entries(contents)) {
    const node: FileNode = {...plain, type: 'reg', mode: 0o755, size: content.length, dataOffset}
    const padding = Buffer.alloc(-content.length & (BLOCK - 1))
    root.children.set(name, node)
    parts.push(content, padding)
    dataOffset += content.length + padding.length
  }
  return {data: Buffer.concat(parts), root}
}

/** Serves a layer of `contents` and mounts it; everything is undone when the test ends. */
async function mountLayer(contents: Readonly<Record<string, Buffer>>) {
  const served = await serveDataFiles()
  const {data, root} = layOut(contents)
  const file = createLazyFile(served.directory, data)
  const path = await served.files.add(file)
  const [image, target] = [join(served.directory, 'image'), join(served.directory, 'target')]
  writeFileSync(image, encodeErofs(root, {blockSize: BLOCK, dataSize: data.length}))
  mkdirSync(target)
  // The main thread is in mount(2) while its workers answer the kernel.
  mountErofs({image, data: path, target})
  onTestFinished(() => unmount(target, MNT_DETACH))
  return {...served, file, target}
}

/** What sha256sum prints for files, read by a process of its own. */
async function sumsOf(target: string, names: readonly string[]): Promise<string[]> {
  const {stdout} = await run('sha256sum', names, {cwd: target})
  return stdout
    .trim()
    .split('\n')
    .map(line => `sha256:${line.slice(0, 64)}`)
}

const canRun = process.getuid?.() === 0 && (await canMountErofs(tmpdir()))

/** EROFS from files needs Linux 6.12; CI may run on an older one, where layers are FUSE trees. */
const itWithErofs = canRun ? it : it.skip

describeWith(['root', 'dd', 'sha256sum'], 'an EROFS mount over a data file', () => {
  const contents = Object.fromEntries(
    [0, 1, 4095, 4096, 4097, 100_000, 3_000_000].map(size => [`file-${size}`, noise(size, `${size}`)]),
  )
  const names = Object.keys(contents)
  const expected = names.map(name => digestOf(contents[name]!))

  itWithErofs('needs no data to be mounted and listed, and has all of it when it is read', async () => {
    const {file, target} = await mountLayer(contents)
    const {stdout} = await run('ls', ['-l', target])
    expect(stdout).toContain('3000000')
    expect(file.fetched).toEqual([])
    expect(await sumsOf(target, names)).toEqual(expected)
    expect(await sumsOf(target, names)).toEqual(expected)
    expect(file.fetched.reduce((sum, {length}) => sum + length, 0)).toBe(file.size)
  })

  itWithErofs('runs programs from it, whose pages come as they are touched', async () => {
    const program = readFileSync('/bin/ls')
    const {target} = await mountLayer({padding: noise(5000), ls: program})
    // Not by ourselves: Node's main thread, which fetches, waits until a program that it starts has been loaded.
    const {stdout} = await run('sh', ['-c', '"$0" "$1"', join(target, 'ls'), target])
    expect(stdout).toBe('ls\npadding\n')
  })

  itWithErofs('is right for many readers of cold files at once', async () => {
    const many = Object.fromEntries(
      Array.from({length: 60}, (_, index) => [`${index}`, noise(1 + index * 1777, `${index}`)]),
    )
    const {file, target} = await mountLayer(many)
    file.onFetch = () => new Promise(resolve => setImmediate(resolve))
    const all = Object.keys(many)
    const digests = all.map(name => digestOf(many[name]!))
    const readers = Array.from({length: 6}, (_, reader) =>
      // Each in another order.
      sumsOf(target, [...all.slice(reader * 10), ...all.slice(0, reader * 10)]),
    )
    for (const [reader, sums] of (await Promise.all(readers)).entries()) {
      expect(sums).toEqual([...digests.slice(reader * 10), ...digests.slice(0, reader * 10)])
    }
  })

  itWithErofs('has an I/O error where a fetch failed, and the right bytes once it succeeds', async () => {
    const {file, target, said} = await mountLayer(contents)
    file.onFetch = async () => {
      throw new Error('no network')
    }
    await expect(sumsOf(target, ['file-100000'])).rejects.toThrow(/Input\/output error/)
    expect(said).toContain('warn cannot read lazily no network')
    file.onFetch = async () => {}
    expect(await sumsOf(target, names)).toEqual(expected)
  })

  itWithErofs('keeps what it has read when the pages of the data file are given back', async () => {
    const {file, files, target} = await mountLayer(contents)
    expect(await sumsOf(target, names)).toEqual(expected)
    await files.trim(file.name)
    const fetches = file.fetched.length
    expect(await sumsOf(target, names)).toEqual(expected)
    expect(file.fetched).toHaveLength(fetches)
  })

  itWithErofs('lets nobody wait for ever when its server goes', async () => {
    const {file, files, target} = await mountLayer(contents)
    const asked = Promise.withResolvers<void>()
    file.onFetch = async (_offset, _length, signal) => {
      asked.resolve()
      await once(signal, 'abort')
      throw signal.reason
    }
    const reader = spawn('cat', [join(target, 'file-3000000')], {stdio: 'ignore'})
    await asked.promise
    await files.close('unmount')
    expect(await once(reader, 'close')).toEqual([1, null])
  })
})
