import {existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {afterEach, beforeEach, describe, expect, it} from 'vitest'
import {CodedError, codeOf} from '../../src/lib/errors/coded-error.ts'
import type {LayerMounter} from '../../src/lib/snapshot/ports.ts'
import {createSnapshotter, type Snapshotter} from '../../src/lib/snapshot/snapshotter.ts'
import {openSnapshotDirectories} from '../../src/lib/state/snapshot-directories.ts'
import {openSnapshotTable} from '../../src/lib/state/sqlite-snapshot-table.ts'

const signal = new AbortController().signal
const TARGET = 'containerd.io/snapshot.ref'
const REMOTE = 'containerd.io/snapshot/remote'

let root: string
let mounted: Set<string>
let lazy: boolean
let available: boolean
let busy: string | undefined
/** How often something was mounted. */
let mounts: number
/** What was said of images that share layers: who says so, whose labels, and of which mountpoints. */
let shared: {readonly at: string; readonly image: string | undefined; readonly below: readonly string[]}[]
let table: ReturnType<typeof openSnapshotTable>
let snapshotter: Snapshotter

const mounter: LayerMounter = {
  mount: async mountpoint => {
    if (!lazy) throw new CodedError('unsupported', 'Cannot mount lazily: no TOC')
    mounted.add(mountpoint)
    mounts++
    available = true
  },
  check: async () => {
    if (!available) throw new CodedError('unavailable', 'Cannot reach the registry')
  },
  unmount: async mountpoint => {
    if (mountpoint === busy) throw new CodedError('failed-precondition', 'Cannot unmount: it is in use')
    mounted.delete(mountpoint)
  },
  expectStart: () => {},
  expectReads: () => {},
  share: (mountpoint, labels, below) => void shared.push({at: mountpoint, image: labels.image, below}),
}

async function open(): Promise<void> {
  table = openSnapshotTable(join(root, 'metadata.db'))
  const log = {info: () => {}, warn: () => {}, debug: () => {}}
  const directories = await openSnapshotDirectories(root)
  snapshotter = createSnapshotter({
    table,
    directories,
    mounter,
    disk: {makeRoom: async () => {}, tidy: async () => {}},
    overlayOptions: ['index=off'],
    log,
    now: () => new Date(1e12),
  })
}

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), 'snapshotter-'))
  mounted = new Set()
  lazy = true
  available = true
  mounts = 0
  shared = []
  await open()
})

afterEach(() => {
  table[Symbol.dispose]()
  rmSync(root, {recursive: true})
})

const failure = (work: Promise<unknown>) => work.then(() => 'no error', codeOf)
async function namesOf(filters: readonly string[]): Promise<string[]> {
  const found: string[] = []
  for await (const {name} of snapshotter.walk(filters)) found.push(name)
  return found
}
const names = () => namesOf([])

async function committed(name: string, parent = ''): Promise<void> {
  await snapshotter.prepare(`${name}-key`, parent, {}, signal)
  await snapshotter.commit(name, `${name}-key`, {})
}

describe('ordinary snapshots follow overlayfs semantics', () => {
  it('binds the first layer, and overlays the second on it', async () => {
    const first = await snapshotter.prepare('a', '', {}, signal)
    expect(first).toEqual([{type: 'bind', source: join(root, 'snapshots/1/fs'), options: ['rw', 'rbind']}])
    await snapshotter.commit('base', 'a', {})
    const second = await snapshotter.prepare('b', 'base', {}, signal)
    expect(second).toEqual([
      {
        type: 'overlay',
        source: 'overlay',
        options: [
          'index=off',
          `workdir=${root}/snapshots/2/work`,
          `upperdir=${root}/snapshots/2/fs`,
          `lowerdir=${root}/snapshots/1/fs`,
        ],
      },
    ])
  })

  it('lists lower directories from the top', async () => {
    await committed('one')
    await committed('two', 'one')
    const [mount] = await snapshotter.view('v', 'two', {}, signal)
    expect(mount!.options).toEqual(['index=off', `lowerdir=${root}/snapshots/2/fs:${root}/snapshots/1/fs`])
  })

  it('binds a view of one layer read-only', async () => {
    await committed('one')
    expect(await snapshotter.view('v', 'one', {}, signal)).toEqual([
      {type: 'bind', source: `${root}/snapshots/1/fs`, options: ['ro', 'rbind']},
    ])
  })

  it('counts what an active snapshot holds, and remembers it when committed', async () => {
    await snapshotter.prepare('a', '', {}, signal)
    writeFileSync(join(root, 'snapshots/1/fs/file'), Buffer.alloc(8192))
    expect((await snapshotter.usage('a')).inodes).toBe(2)
    await snapshotter.commit('base', 'a', {})
    expect((await snapshotter.usage('base')).size).toBeGreaterThanOrEqual(8192)
  })

  it('takes over the mode of the parent directory', async () => {
    await committed('one')
    const {chmodSync} = await import('node:fs')
    chmodSync(join(root, 'snapshots/1/fs'), 0o1777)
    await snapshotter.prepare('b', 'one', {}, signal)
    expect(statSync(join(root, 'snapshots/2/fs')).mode & 0o7777).toBe(0o1777)
  })

  it('refuses a key that exists', async () => {
    await snapshotter.prepare('a', '', {}, signal)
    expect(await failure(snapshotter.prepare('a', '', {}, signal))).toBe('already-exists')
  })

  it('refuses a parent that is missing, active, or the name of nothing', async () => {
    expect(await failure(snapshotter.prepare('a', 'nobody', {}, signal))).toBe('not-found')
    await snapshotter.prepare('active', '', {}, signal)
    expect(await failure(snapshotter.prepare('b', 'active', {}, signal))).toBe('invalid-argument')
    expect(await failure(snapshotter.prepare('', '', {}, signal))).toBe('invalid-argument')
  })

  it('refuses to commit a view, and a name that exists', async () => {
    await committed('one')
    await snapshotter.view('v', 'one', {}, signal)
    expect(await failure(snapshotter.commit('x', 'v', {}))).toBe('failed-precondition')
    await snapshotter.prepare('a', '', {}, signal)
    expect(await failure(snapshotter.commit('one', 'a', {}))).toBe('already-exists')
  })

  it('refuses to mount a committed snapshot', async () => {
    await committed('one')
    expect(await failure(snapshotter.mounts('one', signal))).toBe('failed-precondition')
  })

  it('refuses to remove a parent, and deletes directories on cleanup', async () => {
    await committed('one')
    await committed('two', 'one')
    expect(await failure(snapshotter.remove('one'))).toBe('failed-precondition')
    await snapshotter.remove('two')
    expect(existsSync(join(root, 'snapshots/2'))).toBe(true)
    await snapshotter.cleanup()
    expect(readdirSync(join(root, 'snapshots'))).toEqual(['1'])
  })
})

describe('a lazy layer is committed at once', () => {
  const labels = {[TARGET]: 'layer-1', 'containerd.io/snapshot/remote/stargz.reference': 'host/image'}

  it('answers already-exists, which tells containerd not to download', async () => {
    expect(await failure(snapshotter.prepare('key', '', labels, signal))).toBe('already-exists')
    expect(await names()).toEqual(['layer-1'])
    expect(snapshotter.stat('layer-1').labels[REMOTE]).toBe('remote snapshot')
    expect(mounted).toEqual(new Set([join(root, 'snapshots/1/fs')]))
    expect(await snapshotter.usage('layer-1')).toEqual({size: 0, inodes: 0})
  })

  it('does not mount a layer twice', async () => {
    await failure(snapshotter.prepare('key', '', labels, signal))
    expect(await failure(snapshotter.prepare('other', '', labels, signal))).toBe('already-exists')
    expect(await names()).toEqual(['layer-1'])
  })

  it('says which images have the layers below it, those that find it here already included, and after a restart', async () => {
    const files = (id: number) => join(root, `snapshots/${id}/fs`)
    await failure(snapshotter.prepare('k1', '', {...labels, image: 'a'}, signal))
    const above = {...labels, [TARGET]: 'layer-2', image: 'b'}
    await failure(snapshotter.prepare('k2', 'layer-1', above, signal))
    await failure(snapshotter.prepare('k3', '', {...labels, image: 'c'}, signal))
    expect(shared.filter(({below}) => below.length > 0)).toEqual([
      {at: files(2), image: 'b', below: [files(1)]},
      {at: files(1), image: 'c', below: [files(1)]},
    ])
    shared = []
    table[Symbol.dispose]()
    await open()
    await snapshotter.restore(signal)
    expect(shared).toContainEqual({at: files(2), image: 'b', below: [files(1)]})
  })

  it('lets two requests for the same layer share one snapshot', async () => {
    const both = [
      snapshotter.prepare('k1', '', labels, signal),
      snapshotter.prepare('k2', '', labels, signal),
    ]
    expect(await Promise.all(both.map(failure))).toEqual(['already-exists', 'already-exists'])
    expect(await names()).toEqual(['layer-1'])
    expect(mounted.size).toBe(1)
  })

  it('falls back to ordinary mounts when the layer cannot be lazy', async () => {
    lazy = false
    const [mount] = await snapshotter.prepare('key', '', labels, signal)
    expect(mount!.type).toBe('bind')
    expect(await names()).toEqual(['key'])
  })

  it('is unavailable to containers while it cannot be read', async () => {
    await failure(snapshotter.prepare('key', '', labels, signal))
    available = false
    lazy = false
    expect(await failure(snapshotter.prepare('container', 'layer-1', {}, signal))).toBe('unavailable')
    expect(await names()).toEqual(['layer-1'])
  })

  it('is mounted again when a container needs it, once for all who do', async () => {
    await failure(snapshotter.prepare('key', '', labels, signal))
    available = false
    const [mountpoint] = mounted
    mounted.clear()
    await Promise.all(['a', 'b', 'c'].map(key => snapshotter.prepare(key, 'layer-1', {}, signal)))
    expect([...mounted]).toEqual([mountpoint])
    expect(mounts).toBe(2)
  })

  it('keeps its mark when labels are updated', async () => {
    await failure(snapshotter.prepare('key', '', labels, signal))
    snapshotter.update('layer-1', {a: 'b'}, [])
    expect(snapshotter.stat('layer-1').labels).toEqual({a: 'b', [REMOTE]: 'remote snapshot'})
  })

  it('is mounted again after a restart, and named when it cannot be', async () => {
    await failure(snapshotter.prepare('key', '', labels, signal))
    table[Symbol.dispose]()
    mounted.clear()
    await open()
    expect(await snapshotter.restore(signal)).toEqual([])
    expect(mounted.size).toBe(1)
    lazy = false
    expect(await snapshotter.restore(signal)).toEqual(['layer-1'])
  })

  it('is unmounted when it is removed and cleaned up', async () => {
    await failure(snapshotter.prepare('key', '', labels, signal))
    await snapshotter.remove('layer-1')
    await snapshotter.cleanup()
    expect(mounted.size).toBe(0)
    expect(readdirSync(join(root, 'snapshots'))).toEqual([])
  })
})

describe('cleanup', () => {
  it('spares what is being made meanwhile', async () => {
    await committed('base')
    const made = Array.from({length: 20}, (_, index) => snapshotter.prepare(`k${index}`, 'base', {}, signal))
    const cleaned = Array.from({length: 20}, () => snapshotter.cleanup())
    await Promise.all([...made, ...cleaned])
    for (const [mount] of await Promise.all(made)) {
      const upper = mount!.options.find(option => option.startsWith('upperdir='))!
      expect(existsSync(upper.slice('upperdir='.length))).toBe(true)
    }
  })

  it('several at once take each directory away once', async () => {
    for (const name of ['a', 'b', 'c']) await committed(name)
    for (const name of ['a', 'b', 'c']) await snapshotter.remove(name)
    await Promise.all([snapshotter.cleanup(), snapshotter.cleanup(), snapshotter.cleanup()])
    expect(readdirSync(join(root, 'snapshots'))).toEqual([])
  })
})

describe('a directory that cannot be cleaned up', () => {
  it('is told, and keeps no other', async () => {
    for (const name of ['a', 'b', 'c']) await committed(name)
    for (const name of ['a', 'b', 'c']) await snapshotter.remove(name)
    busy = join(root, 'snapshots/2/fs')
    expect(await failure(snapshotter.cleanup())).toBe('failed-precondition')
    expect(readdirSync(join(root, 'snapshots'))).toEqual(['2'])
    busy = undefined
    await snapshotter.cleanup()
    expect(readdirSync(join(root, 'snapshots'))).toEqual([])
  })
})

describe('walk', () => {
  const check = (filters: string[], expected: string[]) =>
    it(`${JSON.stringify(filters)} finds ${expected.join(', ') || 'nothing'}`, async () => {
      await committed('one')
      await snapshotter.prepare('two', 'one', {'a.b/c': 'x', plain: 'y'}, signal)
      expect(await namesOf(filters)).toEqual(expected)
    })

  check([], ['one', 'two'])
  check(['name==two'], ['two'])
  check(['kind==committed'], ['one'])
  check(['parent==one,kind==active'], ['two'])
  check(['kind!=committed'], ['two'])
  check(['labels."a.b/c"==x'], ['two'])
  check(['labels.plain'], ['two'])
  check(['labels.missing'], [])
  check(['name~=/^t.o$/'], ['two'])
  check(['name==one', 'name==two'], ['one', 'two'])
  check(['nosuchfield==x'], [])

  it('refuses a malformed filter', async () => {
    await expect(namesOf(['==x'])).rejects.toThrow(/field name is missing/)
    await expect(namesOf(['name==a b'])).rejects.toThrow(/unexpected text/)
    await expect(namesOf(['name~=/(/'])).rejects.toThrow(/regular expression/)
  })

  it('refuses more filters than anybody needs', async () => {
    const filters = Array.from({length: 1001}, (_, index) => `name==${index}`)
    await expect(namesOf(filters)).rejects.toThrow(/more than 1000/)
    expect(await namesOf(filters.slice(1))).toEqual([])
  })

  it('takes regular expressions as Go does, also those that take JavaScript for ever', async () => {
    await snapshotter.prepare('a'.repeat(60), '', {}, signal)
    expect(await namesOf(['name~=/^(a+)+b$/'])).toEqual([])
    expect(await namesOf(['name~=/(?i)^A+$/'])).toEqual(await names())
    await expect(namesOf(['name~=/(?=a)/'])).rejects.toThrow(/malformed/)
  })
})
