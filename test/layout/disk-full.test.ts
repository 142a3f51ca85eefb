import {execFileSync} from 'node:child_process'
import {readdir, rm, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {expect, it, onTestFinished} from 'vitest'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {describeWith} from '../support/requires.ts'
import {readBlob, writeBlob, writeSampleImage} from '../support/sample-image.ts'
import {temporaryDirectory} from '../support/temporary.ts'

/** A file system of 1 MiB. */
async function smallDisk(): Promise<string> {
  const directory = await temporaryDirectory()
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', directory])
  onTestFinished(() => void execFileSync('umount', [directory]))
  return directory
}

describeWith(['root', 'mount'], 'a full disk', () => {
  it('fails the write, says so, and leaves nothing of it', async () => {
    const directory = await smallDisk()
    await using store = await openLocalStore(directory)
    const kept = await writeSampleImage(store.content)
    await store.images.put('example.com/app:1', kept.root)
    const writing = writeBlob(store.content, Buffer.alloc(2 * 1024 * 1024, 1))
    await expect(writing).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining('disk is full'),
    })
    expect(await readdir(join(directory, '.ctr-remote/ingest'))).toEqual([])
    // There is room again, and all is as before.
    await writeBlob(store.content, Buffer.from('small'))
    expect((await store.images.list()).map(image => image.name)).toEqual(['example.com/app:1'])
  })

  it('loses no image when the index cannot be replaced, and images can still be removed', async () => {
    const directory = await smallDisk()
    await using store = await openLocalStore(directory)
    const {root} = await writeSampleImage(store.content)
    await store.images.put('example.com/app:1', root)
    const filler = join(directory, 'filler')
    await writeFile(filler, Buffer.alloc(2 * 1024 * 1024)).catch(() => {})
    await expect(store.images.put('example.com/app:2', root)).rejects.toMatchObject({code: 'unavailable'})
    expect((await store.images.list()).map(image => image.name)).toEqual(['example.com/app:1'])
    await readBlob(store.content, root)
    await rm(filler)
    await store.images.put('example.com/app:2', root)
    expect(await store.images.list()).toHaveLength(2)
  })
})
