// The space that is given up on a full disk.

import {statSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import {expect, it} from 'vitest'
import {Ballast} from '../../src/lib/state/ballast.ts'
import {openSnapshotTable} from '../../src/lib/state/sqlite-snapshot-table.ts'
import {temporaryDirectory} from '../support/temporary.ts'

it('takes 8 MiB, gives them up once, and takes them again', async () => {
  const path = join(await temporaryDirectory(), 'ballast')
  const ballast = new Ballast(path)
  expect(ballast.release()).toBe(false)
  await Promise.all([ballast.restore(), ballast.restore()])
  const {size, blocks} = statSync(path)
  expect(size).toBe(8 << 20)
  expect(blocks * 512).toBeGreaterThanOrEqual(8 << 20)
  expect([ballast.release(), ballast.release()]).toEqual([true, false])
  await ballast.restore()
  expect(statSync(path).size).toBe(8 << 20)
})

it('is silent where it cannot be', async () => {
  const directory = await temporaryDirectory()
  writeFileSync(join(directory, 'file'), '')
  await new Ballast(join(directory, 'file/ballast')).restore()
})

it('is not asked for by a table that is merely in use elsewhere', async () => {
  const path = join(await temporaryDirectory(), 'metadata.db')
  using _table = openSnapshotTable(path)
  let asked = 0
  const onFull = () => {
    asked++
    return true
  }
  expect(() => openSnapshotTable(path, {onFull})).toThrow(/another daemon has it open/)
  expect(asked).toBe(0)
})
