import {join} from 'node:path'
import {expect, it, onTestFinished} from 'vitest'
import {TreeFileSystem} from '../../src/lib/fuse-tree/tree-file-system.ts'
import {encodeLayerState, type LayerState} from '../../src/lib/fuse-tree/tree-state.ts'
import {runCommand, runCommandOrThrow} from '../../src/lib/io/run-command.ts'
import {plainDirectory} from '../../src/lib/vfs/file-tree.ts'
import {createSampleDevice} from '../conformance-mount/sample-device.ts'
import {createLayerBuilder, directory, node, type SampleLayer} from '../conformance-mount/sample-layer.ts'
import {describeWith} from '../support/requires.ts'
import {temporaryDirectory} from '../support/temporary.ts'

async function shell(cwd: string, command: string): Promise<string> {
  const {stdout} = await runCommandOrThrow('sh', ['-ec', command], {cwd})
  return stdout
}

interface Served {
  readonly trees: TreeFileSystem
  readonly mountpoint: string
  add(layer: SampleLayer, name: string, state?: () => LayerState): Promise<string>
}

async function serve(): Promise<Served> {
  const base = await temporaryDirectory()
  const silent = () => {}
  const mountpoint = join(base, 'trees')
  const trees = await TreeFileSystem.open({mountpoint, log: {info: silent, warn: silent, debug: silent}})
  onTestFinished(() => trees.close('unmount'))
  return {
    trees,
    mountpoint,
    add: async (layer, name, state) => {
      const device = createSampleDevice(layer, base, name)
      onTestFinished(() => device.close())
      return await trees.add({device, tree: layer.root, opaque: 'trusted', state})
    },
  }
}

function layerOf(text: string): SampleLayer {
  const {file, layer} = createLayerBuilder()
  return layer(directory({file: file(text), link: node('symlink', {linkName: 'file'})}))
}

const DIGEST = `sha256:${'ab'.repeat(32)}`

it('says how a layer is doing as the reference does', () => {
  const state = {digest: DIGEST, size: 200, fetchedSize: 50}
  const fields = `"digest":"${DIGEST}","size":200,"fetchedSize":50,"fetchedPercent":25`
  expect(encodeLayerState(state).toString()).toBe(`{${fields}}\n`)
  expect(encodeLayerState({...state, error: 'no route'}).toString()).toBe(`{"error":"no route",${fields}}\n`)
  expect(JSON.parse(encodeLayerState({...state, size: 0, fetchedSize: 0}).toString()).fetchedPercent).toBe(
    100,
  )
})

describeWith(['root', 'getfattr'], 'the file system of trees', () => {
  it('has a directory for every layer, also for those that come and go while it is listed', async () => {
    const {trees, mountpoint, add} = await serve()
    expect(await shell(mountpoint, 'ls -a')).toBe('.\n..')
    expect(await add(layerOf('one'), 'a1')).toBe(join(mountpoint, 'a1'))
    expect(await shell(mountpoint, 'ls; cat a1/link')).toBe('a1\none')
    await add(layerOf('two'), 'b2')
    expect(await shell(mountpoint, 'ls | sort; cat b2/file')).toBe('a1\nb2\ntwo')
    await trees.remove('a1')
    expect(await shell(mountpoint, 'ls; cat b2/file')).toBe('b2\ntwo')
    expect((await runCommand('cat', ['a1/file'], {cwd: mountpoint})).stderr).toContain('No such file')
    await add(layerOf('three'), 'a1')
    expect(await shell(mountpoint, 'cat a1/file')).toBe('three')
  })

  it('does not remember that a layer was not there', async () => {
    const {mountpoint, add} = await serve()
    expect((await runCommand('stat', ['abc'], {cwd: mountpoint})).exitCode).not.toBe(0)
    await add(layerOf('one'), 'abc')
    expect(await shell(mountpoint, 'cat abc/file')).toBe('one')
  })

  it('adds a layer once', async () => {
    const {add} = await serve()
    const path = await add(layerOf('one'), 'a1')
    expect(await add(layerOf('another'), 'a1')).toBe(path)
    expect(await shell(path, 'cat file')).toBe('one')
  })

  it('gives files of different layers different inodes, the same after every start', async () => {
    const inodes: string[] = []
    for (let start = 0; start < 2; start++) {
      const {mountpoint, add} = await serve()
      await add(layerOf('one'), 'a1')
      await add(layerOf('two'), 'b2')
      inodes.push(await shell(mountpoint, 'find . -mindepth 1 -printf "%P %i\n" | sort'))
    }
    expect(inodes[0]).toBe(inodes[1])
    expect(new Set(inodes[0]!.split('\n').map(line => line.split(' ')[1])).size).toBe(6)
  })

  it('refuses a layer that cannot be served, and goes on', async () => {
    const {mountpoint, add} = await serve()
    const {file, layer} = createLayerBuilder()
    const hostile = layer(directory({'a/b': file('x')}))
    await expect(add(hostile, 'a1')).rejects.toMatchObject({code: 'unsupported'})
    await add(layerOf('one'), 'b2')
    expect(await shell(mountpoint, 'ls; cat b2/file')).toBe('b2\none')
  })

  it('keeps layers from everybody but root', async () => {
    const {mountpoint, add} = await serve()
    const {file, layer} = createLayerBuilder()
    await add(layer(directory({secret: file('x', {mode: 0o600})})), 'a1')
    expect(await shell('/', `stat -c %a ${mountpoint}`)).toBe('500')
    const setpriv = ['--reuid', '1000', '--clear-groups', '--inh-caps=-all', 'cat', 'secret']
    const {stderr} = await runCommand('setpriv', setpriv, {cwd: join(mountpoint, 'a1')})
    expect(stderr).toContain('Permission denied')
  })

  it('says in a file that no listing shows how a layer is doing', async () => {
    const {add} = await serve()
    let fetchedSize = 0
    let error: string | undefined
    const path = await add(layerOf('one'), 'a1', () => ({digest: DIGEST, size: 400, fetchedSize, error}))
    expect(await shell(path, 'ls -A')).toBe('file\nlink')
    expect(await shell(path, 'ls -A .stargz-snapshotter')).toBe(`${DIGEST}.json`)
    expect(await shell(path, 'ls .stargz-snapshotter/*')).toBe(`.stargz-snapshotter/${DIGEST}.json`)
    expect(await shell(path, 'ls -la .stargz-snapshotter')).toContain(`${DIGEST}.json`)
    expect(await shell(path, `stat -c %a .stargz-snapshotter .stargz-snapshotter/${DIGEST}.json`)).toBe(
      '500\n400',
    )
    const read = async () => JSON.parse(await shell(path, `cat .stargz-snapshotter/${DIGEST}.json`))
    expect(await read()).toEqual({digest: DIGEST, size: 400, fetchedSize: 0, fetchedPercent: 0})
    for (const step of [4, 100, 399, 7]) {
      fetchedSize = step
      expect(await read()).toMatchObject({fetchedSize: step, fetchedPercent: step / 4})
    }
    error = 'Cannot reach the registry'
    expect(await read()).toMatchObject({error: 'Cannot reach the registry'})
    error = undefined
    expect(await read()).toEqual({digest: DIGEST, size: 400, fetchedSize: 7, fetchedPercent: 1.75})
    const other = await runCommand('cat', ['.stargz-snapshotter/sha256:other.json'], {cwd: path})
    expect(other.stderr).toContain('No such file')
  })

  it('has no state directory where nobody says how a layer is doing', async () => {
    const {add} = await serve()
    const path = await add(layerOf('one'), 'a1')
    expect((await runCommand('stat', ['.stargz-snapshotter'], {cwd: path})).exitCode).not.toBe(0)
  })

  it('shows what a mount of nothing is', async () => {
    const {add} = await serve()
    const path = await add(createLayerBuilder().layer(plainDirectory()), 'e0')
    expect(await shell(path, 'ls -A; stat -c "%a %h" .; stat -f -c "%l %b" .')).toBe('755 2\n255 0')
  })

  it('keeps layers with extended attributes apart, so that nobody asks for any of the others', async () => {
    const {mountpoint, add} = await serve()
    const {file, layer} = createLayerBuilder()
    const xattrs = new Map([['user.name', Buffer.from('value')]])
    const marked = await add(layer(directory({file: file('with', {xattrs})})), 'a1')
    const bare = await add(layerOf('without'), 'b2')
    expect(marked).toBe(join(`${mountpoint}-xattrs`, 'a1'))
    expect(bare).toBe(join(mountpoint, 'b2'))
    expect(await shell('/', `getfattr -n user.name --only-values ${marked}/file`)).toBe('value')
    expect((await runCommand('getfattr', ['-n', 'user.none', 'file'], {cwd: marked})).stderr).toContain(
      'No such attribute',
    )
    expect(await shell(bare, 'getfattr -d -m - file')).toBe('')
    expect((await runCommand('getfattr', ['-n', 'user.name', 'file'], {cwd: bare})).stderr).toContain(
      'Operation not supported',
    )
    expect(await shell(bare, 'cat file')).toBe('without')
  })

  it('answers many threads that list, look up and miss at the same time', async () => {
    const {add} = await serve()
    const {file, layer} = createLayerBuilder()
    const children = Object.fromEntries(
      Array.from({length: 3000}, (_, index) => [`n${index}`, {...file('')}]),
    )
    const path = await add(layer(directory({one: directory(children), two: directory(children)})), 'a1')
    const outputs = await Promise.all(
      ['one', 'two', 'one', 'two', 'one'].map(name =>
        shell(
          path,
          `ls -l ${name} | wc -l; ls ${name}/n17 ${name}/n2999; ls ${name}/none 2>&1 | grep -c such`,
        ),
      ),
    )
    for (const [index, output] of outputs.entries()) {
      const name = index % 2 ? 'two' : 'one'
      expect(output).toBe(`3001\n${name}/n17\n${name}/n2999\n1`)
    }
  })
})
