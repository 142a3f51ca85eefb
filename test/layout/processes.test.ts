import {type ChildProcess, spawn} from 'node:child_process'
import {once} from 'node:events'
import {readdir, readFile, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {createInterface} from 'node:readline'
import {describe, expect, it, onTestFinished} from 'vitest'
import {ownerToken} from '../../src/lib/io/process-owner.ts'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import type {Digest} from '../../src/lib/oci/digest.ts'
import {OCI_MANIFEST} from '../../src/lib/oci/media-type.ts'
import {readBlob, writeBlob, writeSampleImage} from '../support/sample-image.ts'
import {temporaryDirectory} from '../support/temporary.ts'

function startWorker(name: string, args: readonly string[]): ChildProcess {
  const script = join(import.meta.dirname, 'workers', `${name}.ts`)
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', script, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  return child
}

/** A worker that has reached a point and stays there, and what it said. */
async function hold(directory: string, point: string): Promise<{said: string; kill(): Promise<void>}> {
  const child = startWorker('hold', [directory, point])
  const [said] = (await once(createInterface({input: child.stdout!}), 'line')) as [string]
  return {
    said,
    async kill() {
      const ended = once(child, 'exit')
      child.kill('SIGKILL')
      await ended
    },
  }
}

describe('processes that use one store', () => {
  it('lose nothing when all write at once, and one collects garbage meanwhile', async () => {
    const directory = await temporaryDirectory()
    const workers = ['a', 'b', 'c'].map(first => startWorker('write-images', [directory, first, '10']))
    const ended = Promise.all(workers.map(worker => once(worker, 'exit')))
    await using store = await openLocalStore(directory)
    let running = true
    void ended.then(() => (running = false))
    while (running) await store.collectGarbage()
    expect(await ended).toEqual([
      [0, null],
      [0, null],
      [0, null],
    ])
    const images = await store.images.list()
    expect(images).toHaveLength(30)
    await store.collectGarbage()
    for (const {target} of images) {
      const {layers, config} = JSON.parse((await readBlob(store.content, target)).toString())
      for (const blob of [config, ...layers]) await readBlob(store.content, blob)
    }
  })

  it('leave no lock behind when they are killed holding it', async () => {
    const directory = await temporaryDirectory()
    const worker = await hold(directory, 'lock')
    await using store = await openLocalStore(directory)
    const writing = writeSampleImage(store.content)
    await worker.kill()
    const {root} = await writing
    expect(await store.images.put('example.com/app:1', root)).toMatchObject({target: root})
  })

  it('stop waiting for the lock when they are cancelled', async () => {
    const directory = await temporaryDirectory()
    const worker = await hold(directory, 'lock')
    await using store = await openLocalStore(directory)
    const abort = new AbortController()
    const writing = store.content.write({mediaType: ''}, {signal: abort.signal})
    abort.abort()
    await expect(writing).rejects.toMatchObject({name: 'AbortError'})
    await worker.kill()
  })
})

describe('a process killed while it writes', () => {
  it('leaves no blob, and the next writer sweeps what it staged', async () => {
    const directory = await temporaryDirectory()
    const worker = await hold(directory, 'write')
    const ingest = join(directory, '.ctr-remote/ingest')
    expect(await readdir(ingest)).toHaveLength(1)
    // Alive, it keeps what it staged.
    const first = await openLocalStore(directory)
    await writeBlob(first.content, Buffer.from('another'))
    expect(await readdir(ingest)).toHaveLength(1)
    await worker.kill()
    const second = await openLocalStore(directory)
    const blob = await writeBlob(second.content, Buffer.from('a third'))
    expect(await readdir(ingest)).toEqual([])
    expect(await readdir(join(directory, 'blobs/sha256'))).toHaveLength(2)
    expect((await readBlob(second.content, blob)).toString()).toBe('a third')
  })

  it('leaves foreign files of the ingest directory alone', async () => {
    const directory = await temporaryDirectory()
    const store = await openLocalStore(directory)
    await writeBlob(store.content, Buffer.from('x'))
    const foreign = join(directory, '.ctr-remote/ingest/notes.txt')
    await writeFile(foreign, 'mine')
    await store.collectGarbage()
    expect(await readFile(foreign, 'utf8')).toBe('mine')
  })
})

describe('a lease', () => {
  it('keeps what its process wrote from the garbage collection of another', async () => {
    const directory = await temporaryDirectory()
    const worker = await hold(directory, 'lease')
    await using store = await openLocalStore(directory)
    expect(await store.collectGarbage()).toBe(0)
    await worker.kill()
    // Its process is dead, and so is the lease.
    expect(await store.collectGarbage()).toBeGreaterThan(0)
    expect(await readdir(join(directory, 'blobs/sha256'))).toEqual([])
    expect(await readdir(join(directory, '.ctr-remote/leases'))).toEqual([])
    expect(worker.said).toMatch(/^sha256:/)
  })

  it('keeps an image that was only found, with all its parts', async () => {
    const directory = await temporaryDirectory()
    await using store = await openLocalStore(directory)
    const {root, layers} = await writeSampleImage(store.content)
    await store.images.put('example.com/app:1', root)
    await using other = await openLocalStore(directory)
    {
      await using _lease = await other.lease()
      await other.content.info(root)
      await store.images.remove('example.com/app:1', {sync: true})
      for (const layer of layers) await readBlob(other.content, layer)
    }
    expect(await store.collectGarbage()).toBeGreaterThan(0)
  })

  it('ends with its store', async () => {
    const directory = await temporaryDirectory()
    {
      await using store = await openLocalStore(directory)
      await store.lease()
      await writeBlob(store.content, Buffer.from('leased'))
      expect(await store.collectGarbage()).toBe(0)
    }
    await using store = await openLocalStore(directory)
    expect(await store.collectGarbage()).toBe('leased'.length)
  })

  it('of a process in another container is believed for a day', async () => {
    const directory = await temporaryDirectory()
    await using store = await openLocalStore(directory)
    const blob = await writeBlob(store.content, Buffer.from('theirs'))
    await store.lease()
    const [boot, , pid, startTime] = ownerToken().split('.')
    const foreign = join(directory, '.ctr-remote/leases', `${boot}.1.${pid}.${startTime}-0123456789abcdef`)
    await writeFile(foreign, `${blob.digest} \n`)
    expect(await store.collectGarbage()).toBe(0)
  })

  it('that is damaged keeps what can be read of it', async () => {
    const directory = await temporaryDirectory()
    await using store = await openLocalStore(directory)
    await store.lease()
    const blob = await writeBlob(store.content, Buffer.from('kept'))
    const leases = join(directory, '.ctr-remote/leases')
    const [name] = await readdir(leases)
    await writeFile(join(leases, name!), `garbage\n${blob.digest} ${OCI_MANIFEST.slice(0, 5)}\nsha256:12`)
    expect(await store.collectGarbage()).toBe(0)
    expect(await store.content.info({...blob, digest: blob.digest as Digest})).toBeDefined()
  })
})
