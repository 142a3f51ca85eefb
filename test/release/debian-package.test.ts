// The package for Debian: made twice, installed, upgraded, removed and purged on a machine of its own.

import {mkdir, mkdtemp, readFile, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join, resolve} from 'node:path'
import {afterAll, beforeAll, expect, it} from 'vitest'
import {writeDebianPackage} from '../../scripts/release/debian-package.ts'
import {laidOutProgram} from '../../scripts/release/program-tree.ts'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {type Machine, startMachine} from '../support/machine.ts'
import {describeWith} from '../support/requires.ts'

const ROOT = resolve(import.meta.dirname, '../..')
const SNAPSHOTTER = 'containerd-stargz-grpc'
const CONFIG = `/etc/${SNAPSHOTTER}/config.toml`
const PACKAGE = '/packages/one.deb'

describeWith(['root', 'machine', 'cc', 'strip'], 'the package for Debian', () => {
  const owned = new AsyncDisposableStack()
  let packages: string
  let machine: Machine

  beforeAll(async () => {
    const directory = await mkdtemp(join(tmpdir(), 'ctr-remote-package-'))
    owned.defer(() => rm(directory, {recursive: true}))
    const tree = join(directory, 'tree')
    laidOutProgram(ROOT, tree)
    const layer = join(directory, 'layer')
    packages = join(layer, 'packages')
    await mkdir(packages, {recursive: true})
    for (const name of ['one', 'two']) {
      const scratch = join(directory, name)
      await mkdir(scratch)
      writeDebianPackage({
        tree,
        scratch,
        version: '0.0.1',
        epoch: '1700000000',
        out: join(packages, `${name}.deb`),
      })
    }
    machine = owned.use(await startMachine({layers: [layer]}))
  })
  afterAll(() => owned[Symbol.asyncDispose]())

  const mainPid = async () => (await machine.do('systemctl', 'show', '-P', 'MainPID', SNAPSHOTTER)).trim()

  it('is the same when it is made again', async () => {
    const [one, two] = await Promise.all(['one', 'two'].map(name => readFile(join(packages, `${name}.deb`))))
    expect(digestOf(two!)).toBe(digestOf(one!))
  })

  it('installs programs that run, and starts nothing that nobody asked for', async () => {
    await machine.do('dpkg', '--install', PACKAGE)
    expect(await machine.do('ctr-remote', '--version')).toContain('ctr-remote')
    expect(await machine.do('dpkg', '--verify', 'ctr-remote')).toBe('')
    expect((await machine.run('systemctl', 'is-active', SNAPSHOTTER)).stdout.trim()).toBe('inactive')
    await machine.do('systemctl', 'enable', '--now', SNAPSHOTTER)
    expect((await machine.run('systemctl', 'is-active', SNAPSHOTTER)).stdout.trim()).toBe('active')
  })

  it('keeps what users wrote, and starts the daemon anew when it is upgraded', async () => {
    await machine.write(CONFIG, 'prefetch_size = 1000\n')
    const before = await mainPid()
    await machine.do('dpkg', '--install', PACKAGE)
    expect(await machine.read(CONFIG)).toBe('prefetch_size = 1000\n')
    const after = await mainPid()
    expect(Number(after)).toBeGreaterThan(0)
    expect(after).not.toBe(before)
  })

  it('stays while containerd has been told of the snapshotter', async () => {
    await machine.do('mkdir', '-p', '/var/lib/ctr-remote')
    await machine.write('/var/lib/ctr-remote/node.json', '{}')
    const {exitCode, stderr} = await machine.run('dpkg', '--remove', 'ctr-remote')
    expect({exitCode, stderr}).toEqual({
      exitCode: 1,
      stderr: expect.stringContaining('ctr-remote node disable'),
    })
    expect((await machine.run('systemctl', 'is-active', SNAPSHOTTER)).stdout.trim()).toBe('active')
    await machine.do('rm', '/var/lib/ctr-remote/node.json')
  })

  it('is removed but for what users wrote, and then purged', async () => {
    await machine.do('dpkg', '--remove', 'ctr-remote')
    expect(await machine.read(CONFIG)).toBe('prefetch_size = 1000\n')
    expect((await machine.run('systemctl', 'is-active', SNAPSHOTTER)).stdout.trim()).toBe('inactive')
    await machine.do('dpkg', '--purge', 'ctr-remote')
    const left = await machine.run('ls', '-d', CONFIG, '/usr/lib/ctr-remote', '/usr/bin/ctr-remote')
    expect(left.stdout).toBe('')
  })
})
