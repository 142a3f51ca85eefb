// The snapshotter is killed while containers read: they wait, and get every byte right.

import {setImmediate as turn} from 'node:timers/promises'
import {afterAll, beforeAll, expect, it} from 'vitest'
import {describeTree, type TreeDescription} from '../conformance-mount/describe-tree.ts'
import {PATIENTLY} from '../support/patience.ts'
import {createRandom} from '../support/random.ts'
import {mountsBelow} from '../support/snapshotter.ts'
import {LARGE_SIZE, SMALL_GROUPS} from './lazy-image.ts'
import {below, describeBackends, openStage, type Stage, treeAt} from './lazy-stage.ts'

/** How often it is killed; more by hand: `KILLS=100 vitest run test/integration/lazy-restarts.test.ts`. */
const killsOf = (backend: string) => Number(process.env.KILLS ?? (backend === 'erofs' ? 20 : 10))

/** A kill comes after so many requests to the registry at most, or when the reader is done: it makes about as many. */
const MAX_REQUESTS = 4

let count = 0
const newNamespace = () => `lazy-restarts-${process.pid}-${++count}`

describeBackends('a snapshotter that is killed', backend => {
  const kills = killsOf(backend)
  let stage: Stage
  /** The whole tree, as overlayfs shows it. */
  let expected: TreeDescription
  let namespace: string

  beforeAll(async () => {
    stage = await openStage({backend, config: 'no_background_fetch = true\n'})
    namespace = newNamespace()
    await stage.ctrRemote(namespace, 'image', 'pull', '-q', stage.plain)
    expected = await stage.tree(namespace, 'overlayfs', stage.plain)
  })
  afterAll(() => stage?.[Symbol.asyncDispose]())

  it('is waited for by a pull', async () => {
    const {registry, snapshotter, lazyManifest} = stage
    const top = {method: 'GET', url: new RegExp(lazyManifest.layers.at(-1)!.digest)}
    registry.inject(top, {kind: 'stall', afterBytes: 10}, 1000)
    const pulling = stage.ctrRemote(namespace, 'image', 'rpull', '--json', stage.lazy)
    pulling.catch(() => {})
    const mounted = () => snapshotter.log().filter(line => line['remote-snapshot-prepared'] === 'true')
    await expect.poll(mounted, PATIENTLY).toHaveLength(lazyManifest.layers.length - 1)
    await snapshotter.stop('SIGKILL')
    registry.heal()
    await snapshotter.start()
    const states = JSON.parse(await pulling).layers.map(({state}: {state: string}) => state)
    expect(states).toEqual(lazyManifest.layers.map(() => 'lazy'))
  })

  const title = `gives readers what they read, killed ${kills} times meanwhile, and heaps up no mounts`
  it(title, {timeout: 120_000 + kills * 10_000}, async () => {
    const random = createRandom(1)
    await stage.ctrRemote(namespace, 'image', 'rpull', stage.lazy)
    // Slow enough that a kill meets reads that wait for the registry.
    stage.registry.inject({method: 'GET', url: /\/blobs\//}, {kind: 'slow', delayMs: 2}, 1_000_000)
    await using mounted = await stage.mount(namespace, 'stargz', stage.lazy)
    const container = `${namespace}-sleeps`
    await stage.ctr(
      namespace,
      ...['run', '-d', '--snapshotter=stargz'],
      stage.lazy,
      container,
      'sleep',
      '1000',
    )
    const mounts = await mountsBelow(stage.snapshotter.directory)
    for (let kill = 0; kill < kills; kill++) {
      const directory = `small/${kill % SMALL_GROUPS}`
      const reading = describeTree(`${mounted.path}/${directory}`)
      let isRead = false
      reading.then(
        () => {
          isRead = true
        },
        () => {},
      )
      const enough = stage.registry.requests.length + random(MAX_REQUESTS)
      while (!isRead && stage.registry.requests.length < enough) await turn()
      await stage.snapshotter.stop('SIGKILL')
      await stage.snapshotter.start()
      expect(await reading, `kill ${kill}`).toEqual(below(expected, directory))
    }
    const mountsNow = await mountsBelow(stage.snapshotter.directory)
    expect(new Set(mountsNow)).toEqual(new Set(mounts))
    // A layer that is complete meanwhile has a second mount, which needs no daemon.
    for (const path of mounts) expect(mountsNow.filter(other => other === path).length).toBeLessThan(3)
    const exec = ['tasks', 'exec', '--exec-id', 'sum', container, 'busybox', 'wc', '-c', '/data/large']
    expect(await stage.ctr(namespace, ...exec)).toBe(`${LARGE_SIZE} /data/large\n`)
    expect(await describeTree(`${mounted.path}/data`)).toEqual(below(expected, 'data'))
  })

  it('pulls, mounts and runs as before', async () => {
    const {lazy} = stage
    await stage.ctrRemote(namespace, 'image', 'rpull', lazy)
    const run = ['run', '--rm', '--snapshotter=stargz', lazy, `${namespace}-again`]
    expect(await stage.ctr(namespace, ...run)).toBe('hello\n')
    expect(await stage.tree(namespace, 'stargz', lazy)).toEqual(expected)
  })

  it('is stopped by SIGTERM and started again, and nobody notices', async () => {
    await using mounted = await stage.mount(namespace, 'stargz', stage.lazy)
    await stage.snapshotter.stop('SIGTERM')
    await stage.snapshotter.start()
    expect(await treeAt(mounted.path)).toEqual(expected)
  })
})
