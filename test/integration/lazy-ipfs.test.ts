// Images in IPFS, lazily: pushed by ours, pulled through the real snapshotter and containerd, and run.

import {readFile, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {afterAll, afterEach, beforeAll, expect, it} from 'vitest'
import {describeTree, type TreeDescription} from '../conformance-mount/describe-tree.ts'
import {type IpfsFault, startIpfsNode, type TestIpfsNode} from '../support/ipfs-node.ts'
import {describeWith} from '../support/requires.ts'
import {LARGE_SIZE, SMALL_GROUPS} from './lazy-image.ts'
import {below, openStage, type Stage} from './lazy-stage.ts'

let count = 0
const newNamespace = () => `lazy-ipfs-${process.pid}-${++count}`

/** Little patience, so that the suite needs none. */
const CONFIG = `ipfs = true
no_background_fetch = true
[blob]
  fetching_timeout_sec = 4
[resolver]
  request_timeout_sec = 1
`

describeWith(['root', 'containerd', 'ctr', 'runc'], 'images in IPFS', () => {
  let node: TestIpfsNode
  let stage: Stage
  let cid: string
  /** The whole tree, as overlayfs shows it. */
  let expected: TreeDescription

  beforeAll(async () => {
    node = await startIpfsNode()
    stage = await openStage({backend: 'auto', config: CONFIG, env: {IPFS_PATH: node.repository}})
    const namespace = newNamespace()
    await stage.ctrRemote(namespace, 'image', 'pull', '-q', stage.plain)
    expected = await stage.tree(namespace, 'overlayfs', stage.plain)
    cid = (await stage.ctrRemote(namespace, 'images', 'ipfs-push', stage.plain)).trim()
  })
  afterAll(async () => {
    await stage?.[Symbol.asyncDispose]()
    await node?.[Symbol.asyncDispose]()
  })
  afterEach(() => node.fail(undefined))

  /** Bytes that were read out of files, as far as their reader said how many he wants. */
  const bytesAsked = () =>
    node.requests.reduce((sum, {call, query}) => sum + (call === 'cat' ? Number(query.length ?? 0) : 0), 0)

  it('are pulled without their layers, and run', async () => {
    const namespace = newNamespace()
    const before = bytesAsked()
    const printed = await stage.ctrRemote(namespace, 'images', 'rpull', '--ipfs', cid)
    expect(printed.match(/^fetching sha256:[0-9a-f]{8}\.\.\. .*(manifest|config)\.v1\+json$/gm)).toHaveLength(
      2,
    )
    const run = ['run', '--rm', '--snapshotter=stargz', cid]
    expect(await stage.ctr(namespace, ...run, `${namespace}-ctr`)).toBe('hello\n')
    expect(await stage.ctrRemote(namespace, ...run, `${namespace}-ours`)).toBe('hello\n')
    // The large file is in nobody's way.
    expect(bytesAsked() - before).toBeLessThan(LARGE_SIZE)
    const content = await stage.ctr(namespace, 'content', 'ls', '-q')
    expect(content.trim().split('\n')).toHaveLength(2)
    const layers = JSON.parse(await stage.ctrRemote(namespace, 'lazy', 'status', '--json', cid))
    expect(layers.map(({lazy, reference}: Record<string, unknown>) => ({lazy, reference}))).toEqual(
      Array(4).fill({lazy: true, reference: cid}),
    )
  })

  it('show the tree that overlayfs shows, also after a restart of the daemon', async () => {
    const namespace = newNamespace()
    await stage.ctrRemote(namespace, 'images', 'rpull', '--ipfs', `ipfs://${cid}`)
    await stage.snapshotter.stop('SIGTERM')
    await stage.snapshotter.start()
    // Which waits until containerd has found the daemon again.
    await stage.ctrRemote(namespace, 'images', 'rpull', '--ipfs', cid)
    expect(await stage.tree(namespace, 'stargz', cid)).toEqual(expected)
  })

  /** The same image with TOCs of its own, so that no layer of it is here yet. */
  async function another(level: number): Promise<string> {
    const namespace = newNamespace()
    const flags = ['--oci', '--estargz', '--estargz-compression-level', String(level)]
    const name = `localhost/another:${level}`
    await stage.ctrRemote(namespace, 'image', 'convert', ...flags, `ipfs://${cid}`, name)
    return (await stage.ctrRemote(namespace, 'image', 'ipfs-push', name)).trim()
  }

  it('give readers no wrong byte, whatever the node does, and the right ones afterwards', async () => {
    const namespace = newNamespace()
    const other = await another(0)
    await stage.ctrRemote(namespace, 'images', 'rpull', '--ipfs', other)
    await using mounted = await stage.mount(namespace, 'stargz', other)
    const read = (directory: string) => describeTree(`${mounted.path}/${directory}`)
    const faults: readonly IpfsFault[] = [
      {kind: 'lie'},
      {kind: 'status', status: 500, body: '{"Message":"context deadline exceeded"}'},
      {kind: 'stall'},
    ]
    const directories: string[] = []
    const failed: string[] = []
    const asked = node.requests.length
    for (const [index, fault] of faults.entries()) {
      // From behind and far from each other: what is read ahead comes after what is read.
      const directory = `small/${SMALL_GROUPS - 1 - index * 8}`
      directories.push(directory)
      node.fail(fault)
      // A wrong byte may be one that nobody wanted.
      const tree = await read(directory).catch(error => {
        expect(String(error), fault.kind).toMatch(/EIO|i\/o error|Input\/output error/)
        failed.push(fault.kind)
        return below(expected, directory)
      })
      expect(tree, fault.kind).toEqual(below(expected, directory))
    }
    expect(failed).toContain('status')
    expect(node.requests.length).toBeGreaterThan(asked)
    node.fail(undefined)
    for (const directory of directories) {
      await expect
        .poll(() => read(directory).catch(() => undefined), {timeout: 100_000, interval: 100})
        .toEqual(below(expected, directory))
    }
  })

  it('are fetched whole by a daemon that is not told of IPFS, which says so', async () => {
    const other = await another(1)
    await stage.snapshotter.stop('SIGTERM')
    const file = join(stage.snapshotter.directory, 'config.toml')
    await writeFile(file, (await readFile(file, 'utf8')).replace('ipfs = true', ''))
    await stage.snapshotter.start()
    const namespace = newNamespace()
    const globals = ['--store', 'containerd', '-a', stage.containerd.address, '-n', namespace]
    const {exitCode, stderr} = await stage.user.run(...globals, 'image', 'rpull', '--ipfs', other)
    expect(exitCode, stderr).toBe(0)
    expect(stderr).toMatch(/layer 1\/4 .* is not lazy: .*it is in IPFS; set ipfs = true/)
    const run = ['run', '--rm', '--snapshotter=stargz', other, `${namespace}-a`]
    expect(await stage.ctr(namespace, ...run)).toBe('hello\n')
  })
})
