import {readFileSync} from 'node:fs'
import {chmod, mkdir} from 'node:fs/promises'
import {join} from 'node:path'
import {expect, it, onTestFinished} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {runCommand, runCommandOrThrow} from '../../src/lib/io/run-command.ts'
import {unmountBelow} from '../../src/lib/mount/mounts.ts'
import {opaqueDirectory, plainDirectory, whiteoutNode} from '../../src/lib/vfs/file-tree.ts'
import {describeWith} from '../support/requires.ts'
import {describeTree} from './describe-tree.ts'
import {describeBackends, openBackend, type TestBackend} from './open-backend.ts'
import {CAPABILITY, richLayer} from './rich-tree.ts'
import {createLayerBuilder, directory, node, type SampleLayer} from './sample-layer.ts'

/** Stacks directories, the lowest first, below a writable one. */
async function overlay(
  {directory: base}: TestBackend,
  lower: readonly string[],
  options: readonly string[] = [],
): Promise<string> {
  const [upper, work, target] = ['upper', 'work', 'merged'].map(name => join(base, name)) as [
    string,
    string,
    string,
  ]
  for (const path of [upper, work, target]) await mkdir(path)
  const data = [`lowerdir=${[...lower].reverse().join(':')}`, `upperdir=${upper}`, `workdir=${work}`]
  await runCommandOrThrow('mount', [
    '-t',
    'overlay',
    '-o',
    [...data, ...options].join(','),
    'overlay',
    target,
  ])
  onTestFinished(() => unmountBelow(target))
  return target
}

/** Runs a shell command in `cwd`; its output. */
async function shell(cwd: string, command: string): Promise<string> {
  const {stdout} = await runCommandOrThrow('sh', ['-ec', command], {cwd})
  return stdout
}

/** `user::rw-`, `user:<user>:r--`, `group::---`, `mask::r--`, `other::---`, as Linux keeps it (posix_acl_xattr.h). */
function accessForUser(user: number): Uint8Array {
  const NOBODY = 0xffffffff
  const entries = [
    [0x01, 6, NOBODY],
    [0x02, 4, user],
    [0x04, 0, NOBODY],
    [0x10, 4, NOBODY],
    [0x20, 0, NOBODY],
  ] as const
  const bytes = Buffer.alloc(4 + 8 * entries.length)
  bytes.writeUInt32LE(2)
  for (const [index, [tag, permissions, id]] of entries.entries()) {
    bytes.writeUInt16LE(tag, 4 + 8 * index)
    bytes.writeUInt16LE(permissions, 6 + 8 * index)
    bytes.writeUInt32LE(id, 8 + 8 * index)
  }
  return bytes
}

function lowerLayer(): SampleLayer {
  const {file, layer} = createLayerBuilder()
  return layer(
    directory({
      'gone-file': file('must not be seen'),
      'gone-directory': directory({below: file('must not be seen')}),
      'not-gone': file('from below'),
      hidden: directory({lower: file('must not be seen')}),
      merged: directory({lower: file('lower'), both: file('of the lower layer')}),
      replaced: directory({below: file('must not be seen')}),
      'was-file': file('must not be seen'),
    }),
  )
}

function upperLayer(): SampleLayer {
  const {file, layer} = createLayerBuilder()
  return layer(
    directory({
      'gone-file': whiteoutNode(),
      'gone-directory': whiteoutNode(),
      'never-there': whiteoutNode(),
      hidden: opaqueDirectory(directory({upper: file('upper')})),
      merged: directory({upper: file('upper'), both: file('of the upper layer')}, {mode: 0o700}),
      replaced: file('a file now'),
      'was-file': directory({below: file('a directory now')}),
    }),
  )
}

const MERGED = [
  'hidden',
  'hidden/upper',
  'merged',
  'merged/both',
  'merged/lower',
  'merged/upper',
  'not-gone',
  'replaced',
  'was-file',
  'was-file/below',
]

describeWith(['root', 'getfattr'], 'lazily mounted layers under overlayfs', () => {
  describeBackends(kind => {
    async function stacked(backend: TestBackend, options: readonly string[] = []) {
      const lower = await backend.mount(lowerLayer(), 'lower')
      const upper = await backend.mount(upperLayer(), 'upper-layer')
      return overlay(backend, [lower.path, upper.path], options)
    }

    it('hide what their whiteouts and opaque directories say', async () => {
      const merged = await stacked(await openBackend(kind))
      expect((await shell(merged, 'find . -mindepth 1 -printf "%P\n" | sort')).split('\n')).toEqual(MERGED)
      expect(await shell(merged, 'cat merged/both replaced was-file/below not-gone')).toBe(
        'of the upper layera file nowa directory nowfrom below',
      )
      expect(await shell(merged, 'stat -c %a merged')).toBe('700')
      for (const name of ['gone-file', 'gone-directory', 'hidden/lower', 'never-there']) {
        expect((await runCommand('stat', [join(merged, name)])).exitCode, name).not.toBe(0)
      }
    })

    it("can be written over: modes, contents, names and times of a copy are the layer's until changed", async () => {
      const backend = await openBackend(kind)
      const {path} = await backend.mount(richLayer())
      const before = await describeTree(path)
      const merged = await overlay(backend, [path])
      await shell(
        merged,
        `chmod 0711 bin/capable
         echo more >> sizes/5000000
         mv attributes/several attributes/renamed
         mv empty moved-directory
         rm -r many devices/null
         ln third fourth
         touch -d @5 -h symlinks/dangling
         echo new > opaque/new`,
      )
      const after = await describeTree(merged)
      expect(after['bin/capable']).toContain(Buffer.from(CAPABILITY).toString('hex'))
      expect(after['bin/capable']).toMatch(/^100711 links 1 0:0 0ns /)
      expect(after['sizes/5000000']).toContain('5000005 bytes')
      expect(after['attributes/renamed']).toBe(before['attributes/several'])
      expect(after['moved-directory']).toMatch(/^40755 /)
      expect(after['symlinks/dangling']).toContain('5000000000ns -> ../../../../no/such/thing')
      expect(after['bin/setuid']).toBe(before['bin/setuid'])
      expect(Object.keys(after)).not.toContain('many')
      expect(Object.keys(after)).not.toContain('devices/null')
      expect(await shell(merged, 'cat opaque/kept opaque/new fourth; tail -c 5 sizes/5000000')).toBe(
        'keptnew\none file, three names\nmore',
      )
      // Nothing of it reaches the layer.
      expect(await describeTree(path)).toEqual(before)
    })

    it('are copied up whole, however little of a file had been fetched', async () => {
      const backend = await openBackend(kind)
      const {file, layer} = createLayerBuilder()
      const sample = layer(directory({data: file({size: 3_000_000})}))
      const {path} = await backend.mount(sample)
      const merged = await overlay(backend, [path])
      await shell(merged, 'printf X | dd of=data bs=1 seek=1500000 conv=notrunc status=none')
      const expected = Buffer.from(sample.data(0, 3_000_000)).fill('X', 1_500_000, 1_500_001)
      expect((await shell(merged, 'sha256sum data')).split(' ')[0]).toBe(
        digestOf(expected).slice('sha256:'.length),
      )
    })

    it('run programs, also those with set-id bits and capabilities', async () => {
      const backend = await openBackend(kind)
      const {file, layer} = createLayerBuilder()
      const [id, cat] = [readFileSync('/usr/bin/id'), readFileSync('/usr/bin/cat')]
      const xattrs = new Map([['security.capability', CAPABILITY]])
      const {path} = await backend.mount(
        layer(
          directory({
            id: file(id, {mode: 0o4755, uid: 12}),
            cat: file(cat, {mode: 0o755, xattrs}),
            script: file('#!/bin/sh\necho from a script\n', {mode: 0o755}),
          }),
        ),
      )
      const merged = await overlay(backend, [path])
      await chmod(backend.directory, 0o755)
      const user = 'setpriv --reuid 1000 --regid 1000 --clear-groups'
      for (const place of [merged, path]) {
        expect(await shell(place, `${user} ./script`)).toBe('from a script')
        expect(await shell(place, `${user} ./id`)).toContain('euid=12')
        expect(await shell(place, `${user} ./cat /proc/self/status`)).toMatch(/CapEff:\t0+400\n/)
      }
    })

    it('grant what access control lists say, and no more', async () => {
      const backend = await openBackend(kind)
      const {file, layer} = createLayerBuilder()
      const attributes = {mode: 0o640, xattrs: new Map([['system.posix_acl_access', accessForUser(1000)]])}
      const sample = layer(directory({listed: file('for 1000', attributes), plain: file('x', {mode: 0o640})}))
      const {path} = await backend.mount(sample)
      const merged = await overlay(backend, [path])
      await chmod(backend.directory, 0o755)
      const as = (user: number) =>
        runCommand('setpriv', [`--reuid=${user}`, '--regid=1', '--clear-groups', 'cat', 'listed'], {
          cwd: merged,
        })
      expect((await as(1000)).stdout).toBe('for 1000')
      expect((await as(1001)).stderr).toContain('Permission denied')
    })

    it('show devices, and nothing where a device says so', async () => {
      const backend = await openBackend(kind)
      const {layer} = createLayerBuilder()
      const sample = layer(
        directory({null: node('char', {devMajor: 1, devMinor: 3, mode: 0o666}), gone: whiteoutNode()}),
      )
      const {path} = await backend.mount(sample)
      const merged = await overlay(backend, [path])
      expect(await shell(merged, 'ls; echo x > null; wc -c < null')).toBe('null\n0')
    })

    it('keep a mark for user namespaces that an opaque directory has itself', async () => {
      const backend = await openBackend(kind)
      const {file, layer} = createLayerBuilder()
      const mark = new Map([['user.overlay.opaque', Buffer.from('y')]])
      const upper = await backend.mount(
        layer(
          directory({hidden: {...plainDirectory(), xattrs: mark, children: new Map([['upper', file('u')]])}}),
        ),
        'upper-layer',
      )
      const lower = await backend.mount(lowerLayer(), 'lower')
      const merged = await overlay(backend, [lower.path, upper.path], ['userxattr'])
      expect(await shell(merged, 'ls hidden')).toBe('upper')
    })

    it('stack as deep as images do', async () => {
      const backend = await openBackend(kind)
      const paths: string[] = []
      for (let index = 0; index < 40; index++) {
        const {file, layer} = createLayerBuilder()
        const sample = layer(directory({shared: file(`${index}`), [`own-${index}`]: file('x')}))
        paths.push((await backend.mount(sample, `layer-${index}`)).path)
      }
      const merged = await overlay(backend, paths)
      expect(await shell(merged, 'cat shared; ls | wc -l')).toBe('3941')
    })
  })

  it('hide the same through the attributes that overlayfs looks at in a user namespace', async () => {
    const backend = await openBackend('fuse', {opaque: 'user'})
    const lower = await backend.mount(lowerLayer(), 'lower')
    const upper = await backend.mount(upperLayer(), 'upper-layer')
    const merged = await overlay(backend, [lower.path, upper.path], ['userxattr'])
    expect((await shell(merged, 'find . -mindepth 1 -printf "%P\n" | sort')).split('\n')).toEqual(MERGED)
  })

  it('hide the same through either attribute where both are there', async () => {
    for (const options of [[], ['userxattr']]) {
      const backend = await openBackend('fuse', {opaque: 'both'})
      const lower = await backend.mount(lowerLayer(), 'lower')
      const upper = await backend.mount(upperLayer(), 'upper-layer')
      const merged = await overlay(backend, [lower.path, upper.path], options)
      expect(await shell(merged, 'ls hidden')).toBe('upper')
    }
  })
})
