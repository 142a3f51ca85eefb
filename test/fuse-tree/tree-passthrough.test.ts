import {spawn} from 'node:child_process'
import {once} from 'node:events'
import {readFileSync, truncateSync} from 'node:fs'
import {mkdir, readdir, rm, writeFile} from 'node:fs/promises'
import {release} from 'node:os'
import {join} from 'node:path'
import {expect, it, onTestFinished} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {openKeeper} from '../../src/lib/fuse/keeper.ts'
import {TreeFileSystem} from '../../src/lib/fuse-tree/tree-file-system.ts'
import {runCommandOrThrow} from '../../src/lib/io/run-command.ts'
import {mountOverlay, unmountBelow} from '../../src/lib/mount/mounts.ts'
import {createSampleDevice, type SampleDevice} from '../conformance-mount/sample-device.ts'
import {createLayerBuilder, directory, type SampleLayer} from '../conformance-mount/sample-layer.ts'
import {describeWith} from '../support/requires.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const [major = 0, minor = 0] = release().split('.').map(Number)
const hasPassthrough = major > 6 || (major === 6 && minor >= 9)

/** A layer with a large file and a small one, and a program. */
function sampleLayer(): {layer: SampleLayer; sum: string} {
  const {file, layer} = createLayerBuilder()
  const large = file({size: 3_000_001})
  const sample = layer(
    directory({small: file('small'), large, program: file(readFileSync('/usr/bin/id'), {mode: 0o755})}),
  )
  return {layer: sample, sum: digestOf(sample.data(large.dataOffset, large.size)).slice('sha256:'.length)}
}

interface Served {
  readonly base: string
  readonly trees: TreeFileSystem
  readonly path: string
  readonly device: SampleDevice
}

async function serve(layer: SampleLayer, how: 'full' | 'empty'): Promise<Served> {
  const base = await temporaryDirectory()
  const device = createSampleDevice(layer, base, 'a1')
  onTestFinished(() => device.close())
  if (how === 'full') device.fill()
  const trees = await openTrees(base)
  onTestFinished(() => trees.close('unmount'))
  return {base, trees, device, path: await trees.add({device, tree: layer.root, opaque: 'trusted'})}
}

async function openTrees(base: string, keeperDirectory?: string): Promise<TreeFileSystem> {
  const silent = () => {}
  return await TreeFileSystem.open({
    mountpoint: join(base, 'trees'),
    passthroughDirectory: join(base, 'copies'),
    keeper: keeperDirectory === undefined ? undefined : await openKeeper({directory: keeperDirectory}),
    log: {info: silent, warn: silent, debug: silent},
  })
}

async function sumOf(path: string): Promise<string> {
  return (await runCommandOrThrow('sha256sum', [path])).stdout.slice(0, 64)
}

/** A process that has a file open, and reads it when told. */
async function openElsewhere(path: string): Promise<{read(): Promise<string>}> {
  const child = spawn('sh', ['-c', 'exec 3< "$0"; echo open; read line; sha256sum <&3', path])
  onTestFinished(() => void child.kill('SIGKILL'))
  await once(child.stdout, 'data')
  return {
    read: async () => {
      const [output] = await Promise.all([once(child.stdout, 'data'), child.stdin.end('\n')])
      return String(output).slice(0, 64)
    },
  }
}

describeWith(['root'], 'passthrough of files that are there', () => {
  it.runIf(hasPassthrough)('needs the server for their data no more', async () => {
    const {layer, sum} = sampleLayer()
    const {path, device, base} = await serve(layer, 'full')
    const reader = await openElsewhere(join(path, 'large'))
    truncateSync(device.path, 0)
    expect(await reader.read()).toBe(sum)
    expect(await sumOf(join(path, 'large'))).toBe(sum)
    // The copy has no name, and the record of decisions goes with the mount.
    expect(await readdir(join(base, 'copies'))).toEqual(['a1.modes'])
  })

  it('is right below overlayfs, for programs, small files and files that are written over', async () => {
    const {layer, sum} = sampleLayer()
    const {base, path} = await serve(layer, 'full')
    const [upper, work, target] = [join(base, 'upper'), join(base, 'work'), join(base, 'merged')]
    for (const place of [upper, work, target]) await mkdir(place)
    await mountOverlay({base, lower: [path], upper, work, target})
    onTestFinished(() => unmountBelow(target))
    expect(await sumOf(join(target, 'large'))).toBe(sum)
    expect((await runCommandOrThrow(join(target, 'program'), ['-u'])).stdout).toBe('0')
    expect((await runCommandOrThrow('cat', [join(target, 'small')])).stdout).toBe('small')
    await runCommandOrThrow('sh', ['-c', 'printf X | dd of=large bs=1 conv=notrunc status=none'], {
      cwd: target,
    })
    expect(await sumOf(join(target, 'large'))).not.toBe(sum)
    expect(await sumOf(join(path, 'large'))).toBe(sum)
  })

  it('is not begun for a file that was opened while it was incomplete', async () => {
    const {layer, sum} = sampleLayer()
    const {path, device} = await serve(layer, 'empty')
    const early = await openElsewhere(join(path, 'large'))
    expect(await sumOf(join(path, 'large'))).toBe(sum)
    device.fill()
    expect(await sumOf(join(path, 'large'))).toBe(sum)
    expect(await early.read()).toBe(sum)
  })

  it('is for all opens of a file that many open at once', async () => {
    const {layer, sum} = sampleLayer()
    const {path} = await serve(layer, 'full')
    const sums = await Promise.all(Array.from({length: 12}, () => sumOf(join(path, 'large'))))
    expect(new Set(sums)).toEqual(new Set([sum]))
  })

  it('clears away what a killed process has left', async () => {
    const base = await temporaryDirectory()
    await mkdir(join(base, 'copies'))
    await writeFile(join(base, 'copies', 'a1-0.copy'), 'half a copy')
    const trees = await openTrees(base)
    onTestFinished(() => trees.close('unmount'))
    expect(await readdir(join(base, 'copies'))).toEqual([])
  })

  it('goes on where there is no room for copies', async () => {
    const {layer, sum} = sampleLayer()
    const {path, base} = await serve(layer, 'full')
    await rm(join(base, 'copies'), {recursive: true})
    expect(await sumOf(join(path, 'large'))).toBe(sum)
  })

  it('ends with the layer, and begins again with the next', async () => {
    const {layer, sum} = sampleLayer()
    const {base, trees, path, device} = await serve(layer, 'full')
    expect(await sumOf(join(path, 'large'))).toBe(sum)
    await trees.remove('a1')
    expect(await readdir(join(base, 'copies'))).toEqual([])
    expect(await trees.add({device, tree: layer.root, opaque: 'trusted'})).toBe(path)
    expect(await sumOf(join(path, 'large'))).toBe(sum)
  })

  it('opens files as they are open already after a restart', async () => {
    const {layer, sum} = sampleLayer()
    const base = await temporaryDirectory()
    const device = createSampleDevice(layer, base, 'a1')
    device.fill()
    onTestFinished(() => device.close())
    const first = await openTrees(base, join(base, 'keeper'))
    const path = await first.add({device, tree: layer.root, opaque: 'trusted'})
    const early = await openElsewhere(join(path, 'large'))
    await first.close('leave')

    const second = await openTrees(base, join(base, 'keeper'))
    onTestFinished(() => second.close('unmount'))
    expect(second.adopted).toBe(true)
    await second.add({device, tree: layer.root, opaque: 'trusted'})
    second.resume()
    expect(await sumOf(join(path, 'large'))).toBe(sum)
    expect(await early.read()).toBe(sum)
  })
})
