import {existsSync} from 'node:fs'
import {mkdir, readdir, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {describe, expect, it} from 'vitest'
import {makeSandboxDirectory} from '../../src/lib/profile/sandbox-directory.ts'
import {temporaryDirectory} from '../support/temporary.ts'

/** The token of a process that is gone: no process has the id 0. */
const GONE = 'noboot.1.0.1'

describe('sandbox directories', () => {
  it('are removed with all that is in them, and their root with the last one', async () => {
    const root = join(await temporaryDirectory(), 'sandboxes')
    const released: string[] = []
    const release = async (directory: string) => void released.push(directory)
    const first = await makeSandboxDirectory(root, [release])
    const second = await makeSandboxDirectory(root, [release])
    expect(first.id).not.toBe(second.id)
    await writeFile(join(first.path, 'file'), '')
    await first[Symbol.asyncDispose]()
    expect(await readdir(root)).toHaveLength(1)
    await second[Symbol.asyncDispose]()
    expect(existsSync(root)).toBe(false)
    expect(released).toEqual([first.path, second.path])
  })

  it('of processes that are gone are cleaned up by the next, those of others are not', async () => {
    const root = join(await temporaryDirectory(), 'sandboxes')
    const left = join(root, `${GONE}-ctr-remote-left`)
    await mkdir(left, {recursive: true, mode: 0o700})
    const released: string[] = []
    await using own = await makeSandboxDirectory(root, [])
    await using _next = await makeSandboxDirectory(root, [async directory => void released.push(directory)])
    expect(existsSync(left)).toBe(false)
    expect(existsSync(own.path)).toBe(true)
  })

  it('stay when something in them cannot be undone, and the rest is undone all the same', async () => {
    const root = join(await temporaryDirectory(), 'sandboxes')
    const released: string[] = []
    const sandbox = await makeSandboxDirectory(root, [
      () => Promise.reject(new Error('busy')),
      async directory => void released.push(directory),
    ])
    await expect(sandbox[Symbol.asyncDispose]()).rejects.toThrow('busy')
    expect(released).toEqual([sandbox.path])
    expect(existsSync(sandbox.path)).toBe(true)
  })

  it('that cannot be cleaned up do not keep others from being made', async () => {
    const root = join(await temporaryDirectory(), 'sandboxes')
    await mkdir(join(root, `${GONE}-ctr-remote-left`), {recursive: true, mode: 0o700})
    let attempts = 0
    const stubborn = async () => {
      if (++attempts === 1) throw new Error('busy')
    }
    await using sandbox = await makeSandboxDirectory(root, [stubborn])
    expect(existsSync(sandbox.path)).toBe(true)
  })
})
