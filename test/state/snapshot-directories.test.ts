// Directories of snapshots: made in full or not at all, and counted honestly.

import {chmodSync, existsSync, linkSync, mkdirSync, readdirSync, statSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import {describe, expect, it} from 'vitest'
import {openSnapshotDirectories} from '../../src/lib/state/snapshot-directories.ts'
import {temporaryDirectory} from '../support/temporary.ts'

describe('snapshot directories', () => {
  it('have a work directory only where something is written', async () => {
    const root = await temporaryDirectory()
    const directories = await openSnapshotDirectories(root)
    await directories.create('1', 'active', undefined)
    await directories.create('2', 'view', undefined)
    expect(readdirSync(join(root, 'snapshots/1')).toSorted()).toEqual(['fs', 'work'])
    expect(readdirSync(join(root, 'snapshots/2'))).toEqual(['fs'])
    expect(await directories.list()).toEqual(['1', '2'])
    expect(statSync(join(root, 'snapshots')).mode & 0o777).toBe(0o700)
  })

  it('take over the mode of the one below', async () => {
    const directories = await openSnapshotDirectories(await temporaryDirectory())
    await directories.create('1', 'active', undefined)
    chmodSync(directories.filesOf('1'), 0o1777)
    await directories.create('2', 'active', directories.filesOf('1'))
    expect(statSync(directories.filesOf('2')).mode & 0o7777).toBe(0o1777)
  })

  it('leave nothing when they cannot be made', async () => {
    const root = await temporaryDirectory()
    const directories = await openSnapshotDirectories(root)
    await expect(directories.create('1', 'active', join(root, 'nosuch'))).rejects.toThrow(/ENOENT/)
    expect(readdirSync(join(root, 'snapshots'))).toEqual([])
  })

  it('of an interrupted run are swept', async () => {
    const root = await temporaryDirectory()
    mkdirSync(join(root, 'snapshots/new-abc/fs'), {recursive: true})
    mkdirSync(join(root, 'snapshots/7/fs'), {recursive: true})
    const directories = await openSnapshotDirectories(root)
    expect(await directories.list()).toEqual(['7'])
    expect(existsSync(join(root, 'snapshots/new-abc'))).toBe(false)
  })

  it('count a file with two names once', async () => {
    const directories = await openSnapshotDirectories(await temporaryDirectory())
    await directories.create('1', 'active', undefined)
    const file = join(directories.filesOf('1'), 'file')
    writeFileSync(file, Buffer.alloc(65536))
    const before = await directories.usage('1')
    linkSync(file, `${file}-2`)
    expect(await directories.usage('1')).toEqual(before)
    expect(before.inodes).toBe(2)
    expect(before.size).toBeGreaterThanOrEqual(65536)
  })
})
