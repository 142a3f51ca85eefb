// The snapshot table on disk: durable, one writer, and honest about a file that cannot be used.

import {execFileSync, spawn} from 'node:child_process'
import {once} from 'node:events'
import {readFileSync, truncateSync, writeFileSync} from 'node:fs'
import {join, resolve} from 'node:path'
import {DatabaseSync} from 'node:sqlite'
import {describe, expect, it, onTestFinished} from 'vitest'
import {codeOf, messageOf} from '../../src/lib/errors/coded-error.ts'
import type {Snapshot} from '../../src/lib/snapshot/snapshot.ts'
import {openSnapshotTable} from '../../src/lib/state/sqlite-snapshot-table.ts'
import {describeWith} from '../support/requires.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const snapshot = (id: string, more: Partial<Snapshot> = {}): Snapshot => ({
  id,
  name: `name-${id}`,
  parent: undefined,
  kind: 'active',
  labels: {},
  createdAt: new Date(1000),
  updatedAt: new Date(2000),
  usage: {size: 0, inodes: 0},
  ...more,
})

async function newPath(): Promise<string> {
  return join(await temporaryDirectory(), 'metadata.db')
}

function refusal(path: string): {code: string; message: string} {
  try {
    openSnapshotTable(path)[Symbol.dispose]()
  } catch (error) {
    return {code: codeOf(error), message: messageOf(error)}
  }
  throw new Error('it opened')
}

describe('the snapshot table', () => {
  it('gives back what was put in, after a restart too', async () => {
    const path = await newPath()
    const full = snapshot('2', {
      parent: 'name-1',
      kind: 'committed',
      labels: {'a.b/c': 'd', quote: '"\'\n', ключ: '値'},
      usage: {size: 2 ** 50, inodes: 7},
    })
    {
      using table = openSnapshotTable(path)
      table.insert(snapshot('1'))
      table.insert(full)
    }
    using table = openSnapshotTable(path)
    expect([...table.list()]).toEqual([snapshot('1'), full])
    expect(table.get('name-2')).toEqual(full)
    expect([table.hasChildren('name-1'), table.hasChildren('name-2')]).toEqual([true, false])
  })

  it('never gives an id twice, not even of a snapshot that is gone', async () => {
    const path = await newPath()
    {
      using table = openSnapshotTable(path)
      expect([table.nextId(), table.nextId()]).toEqual(['1', '2'])
      table.insert(snapshot('2'))
      table.delete('name-2')
    }
    using table = openSnapshotTable(path)
    expect(table.lastId()).toBe(2)
    expect([table.nextId(), table.nextId()]).toEqual(['3', '4'])
  })

  it('renames by replacing', async () => {
    using table = openSnapshotTable(':memory:')
    table.insert(snapshot('1'))
    table.replace('name-1', snapshot('1', {name: 'other', kind: 'committed'}))
    expect(table.get('name-1')).toBe(undefined)
    expect(table.get('other')!.kind).toBe('committed')
  })

  it('has what was written before its writer was killed', async () => {
    const path = await newPath()
    const module = resolve(import.meta.dirname, '../../src/lib/state/sqlite-snapshot-table.ts')
    const program = `
      const {openSnapshotTable} = await import(${JSON.stringify(module)})
      const table = openSnapshotTable(${JSON.stringify(path)})
      for (let index = 1; ; index++) {
        const id = table.nextId()
        table.insert({id, name: id, kind: 'active', labels: {}, createdAt: new Date(), updatedAt: new Date(), usage: {size: 0, inodes: 0}})
        process.stdout.write(id + '\\n')
      }`
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let said = ''
    for await (const chunk of child.stdout!) {
      said += chunk
      if (said.split('\n').length > 20) break
    }
    const gone = once(child, 'exit')
    child.kill('SIGKILL')
    await gone
    using table = openSnapshotTable(path)
    const names = new Set([...table.list()].map(({name}) => name))
    for (const id of said.split('\n').slice(0, -1)) expect(names).toContain(id)
  })
})

describeWith(['root'], 'a full disk', () => {
  it('is unavailable for what is written, and no harm for what is there', async () => {
    const directory = await temporaryDirectory()
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', directory])
    onTestFinished(() => void execFileSync('umount', [directory]))
    using table = openSnapshotTable(join(directory, 'metadata.db'))
    const labels = {text: 'x'.repeat(3000)}
    let id = 0
    const fill = () => {
      for (;;) table.insert(snapshot(String(++id), {labels}))
    }
    expect(fill).toThrow(
      expect.objectContaining({code: 'unavailable', message: expect.stringMatching(/full/)}),
    )
    expect([...table.list()]).toHaveLength(id - 1)
  })
})

describe('a table that cannot be used says why', () => {
  it('is open elsewhere', async () => {
    const path = await newPath()
    using _table = openSnapshotTable(path)
    expect(refusal(path)).toEqual({
      code: 'failed-precondition',
      message: expect.stringContaining(`"${path}": another daemon has it open`),
    })
  })

  it('is no database', async () => {
    const path = await newPath()
    writeFileSync(path, 'not a database at all, but long enough to be looked at'.repeat(20))
    expect(refusal(path)).toEqual({code: 'corrupt', message: expect.stringMatching(/it is damaged/)})
  })

  it("is the reference's, of the same name", async () => {
    const path = await newPath()
    const page = Buffer.alloc(4096)
    page.writeUInt32LE(0xed0cdaed, 16)
    writeFileSync(path, page)
    expect(refusal(path)).toEqual({
      code: 'failed-precondition',
      message: expect.stringMatching(/another implementation wrote it/),
    })
  })

  it('is a newer release’s', async () => {
    const path = await newPath()
    const database = new DatabaseSync(path)
    database.exec('PRAGMA user_version = 99')
    database.close()
    expect(refusal(path)).toEqual({
      code: 'failed-precondition',
      message: expect.stringMatching(/a newer release wrote it/),
    })
  })

  const filled = async () => {
    const path = await newPath()
    using table = openSnapshotTable(path)
    for (let id = 1; id <= 500; id++) table.insert(snapshot(String(id), {labels: {text: 'x'.repeat(500)}}))
    return path
  }

  it('was cut off', async () => {
    const path = await filled()
    truncateSync(path, Math.floor(readFileSync(path).length / 2))
    expect(refusal(path)).toEqual({code: 'corrupt', message: expect.stringMatching(/it is damaged/)})
  })

  it('was overwritten in its middle', async () => {
    const path = await filled()
    const bytes = readFileSync(path)
    bytes.fill(0xa5, 8192, 20480)
    writeFileSync(path, bytes)
    expect(refusal(path)).toEqual({code: 'corrupt', message: expect.stringMatching(/it is damaged/)})
  })

  it('is in a folder that is not there', async () => {
    const path = join(await temporaryDirectory(), 'nosuch/metadata.db')
    expect(refusal(path).message).toContain(path)
  })
})
