// Lazy pulls from end to end: a real containerd, our snapshotter, images in a registry, and every client there is.

import {lstat, readdir} from 'node:fs/promises'
import {join} from 'node:path'
import {afterAll, beforeAll, expect, it} from 'vitest'
import {openContainerdStore} from '../../src/lib/containerd/store.ts'
import {PATIENTLY} from '../support/patience.ts'
import {mountsBelow} from '../support/snapshotter.ts'
import {describeBackends, openStage, PLAIN_LAYER, type Stage} from './lazy-stage.ts'

let count = 0
const newNamespace = () => `lazy-${process.pid}-${++count}`

describeBackends('lazy pull', backend => {
  let stage: Stage
  beforeAll(async () => {
    // Answers that stall are given up soon, so that the suite need not wait.
    stage = await openStage({backend, config: '[resolver]\nrequest_timeout_sec = 2\n'})
  })
  afterAll(() => stage?.[Symbol.asyncDispose]())

  it('leaves nothing when it is interrupted while the snapshotter waits for a registry', async () => {
    const namespace = newNamespace()
    const {registry, snapshotter, containerd, ctr} = stage
    const layers = {
      method: 'GET',
      url: new RegExp(stage.lazyManifest.layers.map(({digest}) => digest).join('|')),
    }
    registry.inject(layers, {kind: 'stall', afterBytes: 10}, 1000)
    const globals = ['--store', 'containerd', '-a', containerd.address, '-n', namespace]
    const running = stage.user.start(...globals, 'image', 'rpull', stage.lazy)
    try {
      const isAsked = () => registry.requests.some(({url}) => layers.url.test(url))
      await expect.poll(isAsked, PATIENTLY).toBe(true)
    } finally {
      running.child.kill('SIGINT')
      await running.finished.finally(registry.heal)
    }
    expect((await running.finished).exitCode).toBe(130)
    expect(await ctr(namespace, 'images', 'ls', '-q')).toBe('')
    expect(await ctr(namespace, 'leases', 'ls', '-q')).toBe('')
    const snapshots = () => ctr(namespace, 'snapshots', '--snapshotter', 'stargz', 'ls')
    await expect.poll(snapshots, PATIENTLY).not.toMatch(/Active|Committed/)
    expect((await mountsBelow(snapshotter.directory)).filter(path => path.includes('/snapshots/'))).toEqual(
      [],
    )
  })

  it('brings no layer into containerd, and says nothing about layers', async () => {
    const namespace = newNamespace()
    const stdout = await stage.ctrRemote(namespace, 'images', 'rpull', stage.lazy)
    expect(stdout.trimEnd().split('\n')).toHaveLength(2)
    const content = await stage.ctr(namespace, 'content', 'ls', '-q')
    for (const {digest} of stage.lazyManifest.layers) expect(content).not.toContain(digest)
    const logged = stage.snapshotter.log().filter(line => 'remote-snapshot-prepared' in line)
    expect(
      logged.slice(-stage.lazyManifest.layers.length).map(line => line['remote-snapshot-prepared']),
    ).toEqual(stage.lazyManifest.layers.map(() => 'true'))
  })

  it('shows the tree that overlayfs shows, cold and warm', async () => {
    const namespace = newNamespace()
    const expected = await stage.tree(namespace, 'overlayfs', await pulled(namespace, stage.plain))
    await stage.ctrRemote(namespace, 'image', 'rpull', stage.lazy)
    expect(await stage.tree(namespace, 'stargz', stage.lazy)).toEqual(expected)
    expect(await stage.tree(namespace, 'stargz', stage.lazy)).toEqual(expected)
  })

  it('is one file system, with inode numbers of its own for every file', async () => {
    const namespace = newNamespace()
    await stage.ctrRemote(namespace, 'image', 'rpull', stage.lazy)
    await using mounted = await stage.mount(namespace, 'stargz', stage.lazy)
    // With the number of the layer in the topmost bits, inode numbers are beyond what doubles hold.
    const {dev} = await lstat(mounted.path, {bigint: true})
    const paths = new Map<bigint, string>()
    for (const entry of await readdir(mounted.path, {recursive: true})) {
      const found = await lstat(join(mounted.path, entry), {bigint: true})
      expect(found.dev, entry).toBe(dev)
      // Of directories that layers merge, overlayfs makes numbers up.
      if (found.isDirectory()) continue
      if (found.nlink === 1n) expect(paths.get(found.ino), entry).toBeUndefined()
      paths.set(found.ino, entry)
    }
    expect(paths.size).toBeGreaterThan(500)
  })

  it('runs by ctr and by ctr-remote, also after a collection and a restart of containerd', async () => {
    const namespace = newNamespace()
    await stage.ctrRemote(namespace, 'image', 'rpull', stage.lazy)
    const run = (id: string) => ['run', '--rm', '--snapshotter=stargz', stage.lazy, `${namespace}-${id}`]
    {
      await using store = await openContainerdStore({address: stage.containerd.address, namespace})
      await store.collectGarbage()
    }
    expect(await stage.ctr(namespace, ...run('ctr'))).toBe('hello\n')
    await stage.containerd.kill()
    await stage.containerd.restart()
    expect(await stage.ctrRemote(namespace, ...run('ctr-remote'))).toBe('hello\n')
    const content = await stage.ctr(namespace, 'content', 'ls', '-q')
    for (const {digest} of stage.lazyManifest.layers) expect(content).not.toContain(digest)
  })

  it('tells how its layers are doing', async () => {
    const namespace = newNamespace()
    await stage.ctrRemote(namespace, 'image', 'rpull', stage.lazy)
    const layers = JSON.parse(await stage.ctrRemote(namespace, 'lazy', 'status', '--json', stage.lazy))
    const digests = layers.map(({digest}: {digest: string}) => digest)
    expect(new Set(digests)).toEqual(new Set(stage.lazyManifest.layers.map(({digest}) => digest)))
    for (const layer of layers) {
      expect(layer).toMatchObject({lazy: true, reference: stage.lazy, errors: 0})
      expect([backend, 'plain']).toContain(layer.backend)
      expect(layer.fetched).toBeLessThanOrEqual(layer.size)
    }
    expect(await stage.ctrRemote(namespace, 'lazy', 'status')).toMatch(/^REF +LAYER +STATE .*\n.*app:esgz/)
    expect(await stage.ctrRemote(namespace, 'lazy', 'status', 'example.com/other:1')).toBe('')
  })

  it('tells where the time of the last start went', async () => {
    const namespace = newNamespace()
    await stage.ctrRemote(namespace, 'image', 'rpull', stage.lazy)
    await using _ = await stage.mount(namespace, 'stargz', stage.lazy)
    const timing = ['lazy', 'status', '--timing', stage.lazy]
    const start = JSON.parse(await stage.ctrRemote(namespace, ...timing, '--json'))
    const topmostFirst = stage.lazyManifest.layers.map(({digest}) => digest).reverse()
    expect({...start, spans: []}).toMatchObject({reference: stage.lazy, layers: topmostFirst, dropped: 0})
    expect(start.spans.map(({step}: {step: string}) => step)).toContain('use')
    expect(await stage.ctrRemote(namespace, ...timing)).toMatch(/\nall +use +\d/)
    const globals = ['--store', 'containerd', '-a', stage.containerd.address, '-n', namespace]
    const unknown = await stage.user.run(...globals, 'lazy', 'status', '--timing', 'example.com/other:1')
    expect(unknown.exitCode).toBe(3)
    expect(unknown.stderr).toContain('Cannot find a start of example.com/other:1')
  })

  it('fetches the one layer that cannot be lazy, says why, and mounts those above it', async () => {
    const namespace = newNamespace()
    const globals = ['--store', 'containerd', '-a', stage.containerd.address, '-n', namespace]
    const {stdout, stderr} = await stage.user.run(...globals, 'image', 'rpull', '--json', stage.mixed)
    const states = JSON.parse(stdout).layers.map(({state}: {state: string}) => state)
    expect(states).toEqual(['lazy', 'lazy', 'lazy', 'lazy'].with(PLAIN_LAYER, 'fetched'))
    expect(stderr).toMatch(
      /layer 2\/4 sha256:[0-9a-f]{12} is not lazy: it is neither eStargz nor zstd:chunked/,
    )
    const content = await stage.ctr(namespace, 'content', 'ls', '-q')
    expect(content.trim().split('\n')).toHaveLength(3)
    // The lazy ones are mounted under the name of the image that came first.
    const status = JSON.parse(await stage.ctrRemote(namespace, 'lazy', 'status', '--json', stage.mixed))
    expect(status.map(({lazy}: {lazy: boolean}) => lazy)).toEqual([true, false, true, true])
    expect(status[PLAIN_LAYER].reason).toMatch(/TOC/)
    expect(await stage.tree(namespace, 'stargz', stage.mixed)).toEqual(
      await stage.tree(namespace, 'overlayfs', await pulled(namespace, stage.plain)),
    )
  })

  async function pulled(namespace: string, ref: string): Promise<string> {
    await stage.ctrRemote(namespace, 'image', 'pull', '-q', ref)
    return ref
  }

  it('says which snapshotter has the image, to who names another or none', async () => {
    const namespace = newNamespace()
    await stage.ctrRemote(namespace, 'image', 'rpull', stage.lazy)
    const globals = ['--store', 'containerd', '-a', stage.containerd.address, '-n', namespace]
    const run = await stage.user.run(...globals, 'run', '--rm', stage.lazy, `${namespace}-a`)
    expect(run.exitCode).toBe(3)
    expect(run.stderr).toMatch(/with "overlayfs": it is not in .*; use it with --snapshotter stargz, or pull/)
    const exported = await stage.user.run(...globals, 'image', 'export', 'image.tar', stage.lazy)
    expect(exported.stderr).toMatch(/after a lazy pull .* layers are not there/)
    expect(await stage.ctr(namespace, 'snapshots', 'ls')).not.toContain('sha256')
  })

  it('unmounts what is removed', async () => {
    const {snapshotter, containerd, ctr} = stage
    const mounted = async () =>
      (await mountsBelow(snapshotter.directory)).filter(path => path.includes('/snapshots/'))
    expect(await mounted()).not.toEqual([])
    for (const namespace of (await containerd.ctr('namespaces', 'ls', '-q')).split('\n').filter(Boolean)) {
      const images = (await ctr(namespace, 'images', 'ls', '-q')).split('\n').filter(Boolean)
      if (images.length > 0) await ctr(namespace, 'images', 'rm', '--sync', ...images)
    }
    await expect.poll(mounted, PATIENTLY).toEqual([])
    // What was fetched stays for the next pull, unless somebody wants the room.
    const prune = async () => JSON.parse(await stage.ctrRemote('default', 'lazy', 'prune', '--json'))
    const {layers, bytes} = await prune()
    expect(layers).toBeGreaterThan(0)
    expect(bytes).toBeGreaterThan(0)
    expect(await prune()).toEqual({layers: 0, bytes: 0})
  })
})
