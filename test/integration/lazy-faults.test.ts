// Registries that fail while containers read: readers wait or get an error, and never a wrong byte.

import {afterAll, afterEach, beforeAll, expect, it} from 'vitest'
import {describeTree, type TreeDescription} from '../conformance-mount/describe-tree.ts'
import type {Fault, Match} from '../support/faulty-registry.ts'
import {PATIENTLY} from '../support/patience.ts'
import {SMALL_GROUPS} from './lazy-image.ts'
import {below, describeBackends, openStage, type Stage} from './lazy-stage.ts'

let count = 0
const newNamespace = () => `lazy-faults-${process.pid}-${++count}`
const BLOBS: Match = {method: 'GET', url: /\/blobs\//}
const FOREVER = 1_000_000

/** Little patience, so that the suite needs none. */
const CONFIG = `no_background_fetch = true
[blob]
  fetching_timeout_sec = 4
  max_retries = 3
  min_wait_msec = 10
  max_wait_msec = 100
[resolver]
  request_timeout_sec = 1
`

describeBackends('a registry that fails', backend => {
  const namespace = newNamespace()
  let stage: Stage
  /** The whole tree, as overlayfs shows it. */
  let expected: TreeDescription
  let mounted: AsyncDisposable & {readonly path: string}

  beforeAll(async () => {
    stage = await openStage({backend, config: CONFIG})
    await stage.ctrRemote(namespace, 'image', 'pull', '-q', stage.plain)
    expected = await stage.tree(namespace, 'overlayfs', stage.plain)
    await stage.ctrRemote(namespace, 'image', 'rpull', stage.lazy)
    mounted = await stage.mount(namespace, 'stargz', stage.lazy)
  })
  afterAll(async () => {
    await mounted?.[Symbol.asyncDispose]()
    await stage?.[Symbol.asyncDispose]()
  })

  afterEach(() => stage.registry.heal())

  let unread = SMALL_GROUPS
  /** A directory that nobody has read yet: what is read ahead comes behind what is read. */
  const freshDirectory = () => `small/${--unread}`

  const read = (directory: string) => describeTree(`${mounted.path}/${directory}`)

  /** Reads a directory; nothing may be wrong, and what cannot be read is an error. */
  async function readOrFail(directory: string): Promise<'right' | 'failed'> {
    const tree = await read(directory).catch(error => {
      expect(String(error)).toMatch(/EIO|i\/o error|Input\/output error/)
      return undefined
    })
    if (!tree) return 'failed'
    expect(tree).toEqual(below(expected, directory))
    return 'right'
  }

  const passing: readonly {readonly name: string; readonly faults: readonly Fault[]}[] = [
    {
      name: 'breaks connections',
      faults: [
        {kind: 'drop', afterBytes: 0},
        {kind: 'drop', afterBytes: 5000},
      ],
    },
    {name: 'stops in the middle', faults: [{kind: 'stall', afterBytes: 5000}]},
    {
      name: 'says that something is wrong with it',
      faults: [500, 502, 503].map(status => ({kind: 'status', status})),
    },
    {
      name: 'has too much to do',
      faults: [{kind: 'status', status: 429, headers: {'retry-after': '0'}}],
    },
    {name: 'ends an answer too early', faults: [{kind: 'truncate', afterBytes: 3000}]},
    {name: 'sends more than was asked for', faults: [{kind: 'extend', extraBytes: 4000}]},
    {name: 'does not know ranges', faults: [{kind: 'ignore-range'}]},
  ]
  for (const {name, faults} of passing) {
    it(`that ${name} for a moment is not noticed by readers`, async () => {
      const directory = freshDirectory()
      const requests = stage.registry.requests.length
      for (const fault of faults) stage.registry.inject(BLOBS, fault)
      expect(await readOrFail(directory)).toBe('right')
      expect(stage.registry.requests.length - requests).toBeGreaterThan(faults.length)
    })
  }

  it('that sends a wrong byte is asked again, or the reader gets an error, and then the right byte', async () => {
    const directory = freshDirectory()
    stage.registry.inject(BLOBS, {kind: 'corrupt'})
    await readOrFail(directory)
    stage.registry.heal()
    expect(await readOrFail(directory)).toBe('right')
  })

  it('that redirects to an address which expires is asked for another one', async () => {
    const {digest} = stage.lazyManifest.layers[2]!
    const storage = `${stage.registry.url}/v2/app/blobs/${digest}?signature=1`
    stage.registry.inject({method: 'GET', url: /\/blobs\/[^?]*$/}, {kind: 'redirect', to: storage}, 1)
    expect(await readOrFail(freshDirectory())).toBe('right')
    stage.registry.inject({method: 'GET', url: /signature/}, {kind: 'status', status: 403}, 1)
    expect(await readOrFail(freshDirectory())).toBe('right')
  })

  it('that sends nothing but wrong bytes gives readers errors, which the status tells', async () => {
    const directory = freshDirectory()
    stage.registry.inject(BLOBS, {kind: 'corrupt'}, FOREVER)
    expect(await readOrFail(directory)).toBe('failed')
    stage.registry.heal()
    const layers = JSON.parse(await stage.ctrRemote(namespace, 'lazy', 'status', '--json'))
    expect(layers.find(({errors}: {errors: number}) => errors > 0)).toMatchObject({
      digest: stage.lazyManifest.layers[2]!.digest,
      lastError: expect.stringMatching(/sha256/),
    })
    // Damage is remembered for a few seconds: who reads in a loop must not ask in a loop.
    await expect.poll(() => readOrFail(directory), PATIENTLY).toBe('right')
  })

  it('that is gone leaves what was read, also over a restart, and fails what was not', async () => {
    const known = freshDirectory()
    expect(await readOrFail(known)).toBe('right')
    await stage.registry[Symbol.asyncDispose]()
    expect(await readOrFail(freshDirectory())).toBe('failed')
    await stage.snapshotter.stop('SIGKILL')
    await stage.snapshotter.start()
    expect(await readOrFail(known)).toBe('right')
    expect(await readOrFail(`small/${SMALL_GROUPS - 1}`)).toBe('right')
    expect(await readOrFail(freshDirectory())).toBe('failed')
  })
})
