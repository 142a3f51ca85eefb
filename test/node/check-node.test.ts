// `node check` on machines that are in order and on machines that are not, with both containerds and the real daemon.

import {execFile} from 'node:child_process'
import {appendFileSync, readFileSync} from 'node:fs'
import {readdir} from 'node:fs/promises'
import {join, resolve} from 'node:path'
import {promisify} from 'node:util'
import {parse} from 'smol-toml'
import {describe, expect, it} from 'vitest'
import {openContainerdStore} from '../../src/lib/containerd/store.ts'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {canMountErofs} from '../../src/lib/mount/mount-erofs.ts'
import {checkKernel} from '../../src/lib/node/check-machine.ts'
import {checkNode, type NodeOptions} from '../../src/lib/node/check-node.ts'
import {checkSettings} from '../../src/lib/node/check-settings.ts'
import {settingsOf} from '../../src/lib/node/containerd-settings.ts'
import type {Finding} from '../../src/lib/node/finding.ts'
import {serveRegistry} from '../../src/lib/registry-server/serve-registry.ts'
import {CONTAINERDS, stargzPlugin, startContainerd, type TestContainerd} from '../support/containerd.ts'
import {describeWith} from '../support/requires.ts'
import {writeSampleImage} from '../support/sample-image.ts'
import {startSnapshotter} from '../support/snapshotter.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const run = promisify(execFile)
const BIN = resolve(import.meta.dirname, '../../bin')

/** What the two releases call the sections that say how pods are pulled. */
const POD_SECTIONS = [
  (lines: string, pause = 'pause:1') =>
    `[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "${pause}"\n[plugins."io.containerd.grpc.v1.cri".containerd]\n${lines}`,
  (lines: string, pause = 'pause:1') =>
    `[plugins."io.containerd.cri.v1.images"]\n${lines}[plugins."io.containerd.cri.v1.images".pinned_images]\n  sandbox = "${pause}"\n`,
]

/** What is wrong, but for what depends on the machine that the tests run on. */
function wrong(findings: readonly Finding[]): string[] {
  return findings
    .filter(
      ({about, level}) => level !== 'ok' && about !== 'kernel' && about !== 'disk' && about !== 'transfer',
    )
    .map(({about, level, message}) => `${about} ${level}: ${message}`)
}

function optionsFor(containerd: TestContainerd, programs: string | undefined, socket: string): NodeOptions {
  return {
    snapshotter: 'stargz',
    snapshotterAddress: socket,
    snapshotterRoot: join(containerd.directory, 'nowhere'),
    program: programs === undefined ? 'containerd' : join(programs, 'containerd'),
    configPath: join(containerd.directory, 'config.toml'),
    docker: '/nowhere/docker',
    address: containerd.address,
  }
}

CONTAINERDS.forEach(({release, needs, programs}, index) => {
  describeWith(['root', ...needs], `a look at a node with ${release}`, () => {
    it('finds images that pods would miss, the pause image first, until they are brought as it says', async () => {
      await using images = await openLocalStore(await temporaryDirectory())
      await using _kept = await images.lease()
      await using registry = await serveRegistry(images)
      const names = [`${registry.address}/app:1`, `${registry.address}/pause:3.10`] as const
      const [app, pause] = names
      await using snapshotter = await startSnapshotter()
      const settings = '  snapshotter = "stargz"\n  disable_snapshot_annotations = false\n'
      await using containerd = await startContainerd({
        cri: true,
        programs,
        config: `${POD_SECTIONS[index]!(settings, pause)}${stargzPlugin(snapshotter.address)}`,
      })
      const options = optionsFor(containerd, programs, snapshotter.address)
      const looked = await checkNode(options)
      expect(wrong(looked)).toEqual([])
      // Where layers are kept, which on some machines is another kind of disk than that of temporary files.
      expect(looked.find(({message}) => message.includes('EROFS'))!.level === 'ok').toBe(
        snapshotter.log().some(({backend}) => backend === 'erofs'),
      )

      await using store = await openContainerdStore({address: containerd.address, namespace: 'k8s.io'})
      await using _lease = await store.lease()
      for (const name of names) {
        const content = {layers: [{'a.txt': name}]}
        await store.images.put(name, (await writeSampleImage(store.content, content)).root)
        const path = name.slice(registry.address.length)
        await images.images.put(`localhost${path}`, (await writeSampleImage(images.content, content)).root)
      }
      const findings = await checkNode(options)
      expect(wrong(findings)).toEqual([
        `image problem: The pause image "${pause}" is not in "stargz"`,
        `image problem: Image "${app}" is not in "stargz"`,
      ])
      for (const {about, remedy} of findings) {
        if (about !== 'image') continue
        const [program, ...words] = remedy!.split(' ')
        await run(join(BIN, program!), ['--address', containerd.address, ...words])
      }
      expect(wrong(await checkNode(options))).toEqual([])
    })

    it('tells a daemon that is gone, and a plugin that containerd has not been restarted for', async () => {
      await using containerd = await startContainerd({cri: true, programs, config: POD_SECTIONS[index]!('')})
      const options = optionsFor(containerd, programs, join(containerd.directory, 'no.sock'))
      const [missing, gone] = wrong(await checkNode(options))
      expect(missing).toBe('containerd problem: containerd\'s configuration has no proxy plugin "stargz"')
      expect(gone).toMatch(/^snapshotter problem: containerd-stargz-grpc does not answer at ".*no\.sock"/)

      appendFileSync(options.configPath, stargzPlugin(options.snapshotterAddress))
      expect(wrong(await checkNode(options))).toContain(
        'containerd problem: containerd runs without the plugin "stargz" that its configuration has',
      )
    })

    it('goes on where containerd is gone, and says so', async () => {
      await using containerd = await startContainerd({programs})
      await containerd.kill()
      const found = wrong(
        await checkNode(optionsFor(containerd, programs, join(containerd.directory, 'no.sock'))),
      )
      expect(found.at(-1)).toMatch(/^containerd problem: Cannot reach containerd: nothing listens/)
    })
  })
})

describeWith(['root'], 'a look at the kernel', () => {
  it('tries EROFS where layers will be, and leaves nothing there', async () => {
    const [disk, memory] = [await temporaryDirectory(), await temporaryDirectory()]
    await run('mount', ['-t', 'tmpfs', 'tmpfs', memory])
    try {
      for (const place of [disk, memory]) {
        const found = (await checkKernel(join(place, 'not', 'yet'))).at(-1)!
        expect(found.message).toContain(`"${place}"`)
        expect(found.level).toBe((await canMountErofs(place)) ? 'ok' : 'warning')
        expect(await readdir(place)).toEqual([])
      }
    } finally {
      await run('umount', [memory])
    }
  })
})

describe('settings of containerd', () => {
  const EXAMPLES = join(import.meta.dirname, '../../examples/snapshotter')
  const context = {
    snapshotter: 'stargz',
    address: '/run/s.sock',
    root: '/var/lib/s',
    configPath: '/etc/containerd/config.toml',
    docker: '/nowhere/docker',
  }
  const check = (text: string) => checkSettings(settingsOf(parse(text), 'stargz'), context)
  const example = (name: string) => readFileSync(join(EXAMPLES, name), 'utf8')
  const levels = (findings: readonly Finding[]) => findings.map(({about, level}) => `${about} ${level}`)

  it('as in the examples are in order', () => {
    expect(levels(check(example('containerd-1.toml')))).toEqual(['cri ok'])
    expect(levels(check(example('containerd-2.toml')))).toEqual(['cri ok', 'transfer ok'])
  })

  it.each([
    [
      'containerd-1.toml',
      /disable_snapshot_annotations = false/,
      'disable_snapshot_annotations = true',
      'cri problem',
    ],
    ['containerd-1.toml', /disable_snapshot_annotations = false/, '', 'cri problem'],
    ['containerd-1.toml', / {2}snapshotter = "stargz"/, '', 'cri warning'],
    ['containerd-2.toml', / {2}snapshotter = "stargz"/, '', 'cri warning'],
    ['containerd-2.toml', /\[\[plugins[\s\S]*/, '', 'transfer warning'],
    ['containerd-2.toml', /enable_remote_snapshot_annotations.*/, '', 'transfer warning'],
    ['containerd-2.toml', /root = .*/, '', 'containerd warning'],
    ['containerd-2.toml', /\[proxy_plugins[\s\S]*?"true"/, '', 'containerd problem'],
  ])('of %s without %s are found wanting', (name, part, instead, found) => {
    const findings = check(example(name).replace(part, instead))
    expect(levels(findings)).toContain(found)
    const {breaks, remedy} = findings.find(({level}) => level !== 'ok')!
    expect({breaks, remedy}).toEqual({
      breaks: expect.any(String),
      remedy: expect.stringContaining(context.configPath),
    })
  })

  it('are mended by what is said to be written', () => {
    const wanting = check('version = 3\n')
    const lines = (findings: readonly Finding[]) =>
      findings.flatMap(({remedy}) => (remedy ? [remedy.split('\n').slice(1).join('\n')] : [])).join('\n')
    const mended = `version = 3\n${lines(wanting)}`
    expect(levels(check(`${mended}\n${lines(check(mended))}`))).toEqual(['transfer ok'])
  })

  it('of a runtime class alone are enough', () => {
    const text = example('containerd-1.toml').replace('  snapshotter = "stargz"', '')
    const runtime =
      '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.lazy]\n  snapshotter = "stargz"\n'
    expect(check(`${text}\n${runtime}`)[0]!.message).toBe(
      'Pods of the runtime lazy use the snapshotter "stargz"',
    )
  })
})
