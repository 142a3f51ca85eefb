// `node enable` and `node disable` on machines of their own: a Debian with systemd, booted, each containerd, and the release.

import {mkdir, mkdtemp, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join, resolve} from 'node:path'
import {afterAll, beforeAll, describe, expect, it} from 'vitest'
import {laidOutProgram} from '../../scripts/release/program-tree.ts'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {serveRegistry} from '../../src/lib/registry-server/serve-registry.ts'
import {CONTAINERDS} from '../support/containerd.ts'
import {createUser} from '../support/ctr-remote.ts'
import {type Machine, startMachine} from '../support/machine.ts'
import {describeWith} from '../support/requires.ts'
import {writeSampleImage} from '../support/sample-image.ts'
import {writeShellImage} from '../support/shell-image.ts'

const ROOT = resolve(import.meta.dirname, '../..')
const CONFIG = '/etc/containerd/config.toml'

/** As somebody wrote it for each release: comments, odd spaces, and a pause image of his own. */
const HAND_WRITTEN = [
  (pause: string) => `# our nodes, 2024
version = 2   # do not change
[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = '${pause}' # mirrored
    [plugins."io.containerd.grpc.v1.cri".containerd]
\tsnapshotter = "overlayfs"
    # disable_snapshot_annotations = true
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
`,
  (pause: string) => `# our nodes, 2025
version = 3
[plugins."io.containerd.cri.v1.images"]
  max_concurrent_downloads = 7
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = '${pause}' # mirrored
`,
]

/** The release, unpacked to /usr/local of a root; made for the first suite that runs. */
let unpacked: Promise<string> | undefined
function unpackedRelease(): Promise<string> {
  unpacked ??= (async () => {
    const root = await mkdtemp(join(tmpdir(), 'ctr-remote-release-'))
    await mkdir(join(root, 'usr'))
    laidOutProgram(ROOT, join(root, 'usr/local'))
    return root
  })()
  return unpacked
}

afterAll(async () => {
  if (unpacked) await rm(await unpacked, {recursive: true})
})

describe('a machine', () => {
  CONTAINERDS.forEach(({release, needs, programs}, index) => {
    describeWith(['root', 'machine', 'cc', 'strip', ...needs], `with ${release}`, () => {
      const owned = new AsyncDisposableStack()
      let machine: Machine
      let pause: string
      let app: string
      let lazy: string
      let before: string

      beforeAll(async () => {
        const directory = await mkdtemp(join(tmpdir(), 'ctr-remote-images-'))
        owned.defer(() => rm(directory, {recursive: true}))
        const images = owned.use(await openLocalStore(directory))
        owned.use(await images.lease())
        const registry = owned.use(await serveRegistry(images))
        for (const name of ['pause', 'app']) {
          const {root} = await writeSampleImage(images.content, {layers: [{'a.txt': name}]})
          await images.images.put(`localhost/${name}:1`, root)
        }
        await images.images.put('localhost/shell:plain', await writeShellImage(images.content, {Cmd: []}))
        lazy = `${registry.address}/shell:lazy`
        await using user = await createUser()
        const places = [`docker://${registry.address}/shell:plain`, `docker://${lazy}`]
        const converted = await user.run('image', 'convert', '--oci', '--estargz', ...places)
        expect(converted.exitCode, converted.stderr).toBe(0)
        pause = `${registry.address}/pause:1`
        app = `${registry.address}/app:1`
        machine = owned.use(
          await startMachine({newerContainerd: programs !== undefined, layers: [await unpackedRelease()]}),
        )
        await machine.write(CONFIG, HAND_WRITTEN[index]!(pause))
        await machine.do('chmod', '640', CONFIG)
        await machine.do('systemctl', 'restart', 'containerd')
        for (const name of [pause, app]) await machine.do('ctr-remote', '-n', 'k8s.io', 'image', 'pull', name)
        before = await everything()
      })
      afterAll(() => owned[Symbol.asyncDispose]())

      /** What is below /etc, and what is remembered: names, kinds, modes, owners, contents. */
      async function everything(): Promise<string> {
        const places = ['/etc', '/var/lib/ctr-remote']
        const names = await machine.run('find', ...places, '-printf', '%p %y %m %U %G %l\n')
        const contents = await machine.run('find', ...places, '-type', 'f', '-exec', 'sha256sum', '{}', '+')
        return [names, contents].map(({stdout}) => stdout.split('\n').sort().join('\n')).join('\n')
      }

      const node = (...words: readonly string[]) => machine.run('ctr-remote', 'node', ...words)

      it('is turned to lazy pulling, checks clean, and is turned back as if nothing had been', async () => {
        const dry = await node('enable', '--dry-run')
        expect(dry.exitCode, dry.stderr).toBe(0)
        expect(dry.stdout).toContain('+[proxy_plugins.stargz]')
        expect(await everything()).toBe(before)

        const enabled = await node('enable')
        expect(enabled.exitCode, enabled.stderr).toBe(0)
        expect(enabled.stdout).toContain(`brought ${pause}\nbrought ${app}\n`)
        const checked = await node('check')
        expect(checked.exitCode, checked.stdout).toBe(0)
        expect(checked.stdout).toContain('Pods use the snapshotter "stargz"')
        expect(checked.stdout).toContain('All 2 images of "k8s.io" are in "stargz"')
        // What was written by hand is still there.
        const text = await machine.read(CONFIG)
        expect(text).toContain(`'${pause}' # mirrored`)

        const pid = await machine.do('systemctl', 'show', '--property=MainPID', 'containerd')
        expect((await node('enable')).stdout).toBe('nothing to do\n')
        expect(await machine.do('systemctl', 'show', '--property=MainPID', 'containerd')).toBe(pid)

        const disabled = await node('disable')
        expect(disabled.exitCode, disabled.stderr).toBe(0)
        expect(await everything()).toBe(before)
        expect((await machine.run('systemctl', 'is-active', 'containerd-stargz-grpc')).stdout).toBe(
          'inactive\n',
        )
        expect((await node('disable')).stdout).toContain('nothing to do')
      })

      it('is not changed where /etc is read-only', async () => {
        await machine.do('mount', '--bind', '/etc', '/etc')
        await machine.do('mount', '-o', 'remount,ro,bind', '/etc')
        const {exitCode, stderr} = await node('enable')
        expect(exitCode).not.toBe(0)
        expect(stderr).toMatch(
          /Cannot write into "\/etc.*": its file system is read-only; nothing has been changed/,
        )
        await machine.do('umount', '/etc')
        expect(await everything()).toBe(before)
      })

      it.each([
        ['at the first restart', 'proxy_plugins'],
        ['at the second restart', 'disable_snapshot_annotations = false'],
      ])('is as it was where containerd does not come back %s', async (_, text) => {
        const dropIn = '/run/systemd/system/containerd.service.d'
        await machine.do('mkdir', dropIn)
        await machine.write(
          `${dropIn}/refuse.conf`,
          `[Service]\nExecStartPre=/bin/sh -c 'if grep -rq "${text}" /etc/containerd; then echo not with this >&2; exit 1; fi'\n`,
        )
        await machine.do('systemctl', 'daemon-reload')
        const {exitCode, stderr} = await node('enable')
        await machine.do('rm', '-r', dropIn)
        await machine.do('systemctl', 'daemon-reload')
        expect(exitCode).not.toBe(0)
        expect(stderr).toMatch(
          /Cannot restart containerd\.service: .*not with this\. Everything is as it was before/,
        )
        expect(await everything()).toBe(before)
        expect((await machine.run('systemctl', 'is-active', 'containerd')).stdout).toBe('active\n')
        expect(await machine.do('ctr', '-n', 'k8s.io', 'images', 'ls', '-q')).toContain(pause)
      })

      it('goes on where it was killed, has lazily pulled images also after a reboot, and is not turned back under them', async () => {
        // At the start of containerd that has read each of the two texts, whoever restarts it is killed, once.
        const dropIn = '/etc/systemd/system/containerd.service.d'
        const kill = (text: string, mark: string) =>
          `ExecStartPre=/bin/sh -c 'grep -rq "${text}" /etc/containerd && mkdir /run/${mark} || exit 0; ` +
          'for p in /proc/[0-9]*; do tr "\\\\0" " " < $$p/cmdline 2>/dev/null | grep -q "node[ ]enable" && kill -9 $${p#/proc/}; done; exit 0\'\n'
        await machine.do('mkdir', '-p', dropIn)
        const texts = ['proxy_plugins', 'disable_snapshot_annotations = false']
        const unit = texts.map((text, mark) => kill(text, `killed-${mark}`)).join('')
        await machine.write(`${dropIn}/kill.conf`, `[Service]\n${unit}`)
        await machine.do('systemctl', 'daemon-reload')
        for (const mark of texts.keys()) {
          expect((await node('enable')).exitCode).not.toBe(0)
          await machine.do('test', '-d', `/run/killed-${mark}`)
        }
        await machine.do('rm', `${dropIn}/kill.conf`)
        await machine.do('systemctl', 'daemon-reload')
        const enabled = await node('enable')
        expect(enabled.exitCode, enabled.stderr).toBe(0)
        expect((await node('check')).exitCode).toBe(0)

        const ours = ['ctr-remote', '-n', 'k8s.io']
        await machine.do(...ours, 'image', 'rpull', lazy)
        const status = JSON.parse(await machine.do(...ours, 'lazy', 'status', '--json', lazy))
        expect(status.map((layer: {lazy: boolean}) => layer.lazy)).toEqual([true, true])
        await machine.do(
          'ctr',
          '-n',
          'k8s.io',
          'containers',
          'create',
          '--snapshotter',
          'stargz',
          lazy,
          'user',
        )
        await machine.reboot()
        // Not run: the control groups of such a machine are not its own.
        await machine.do(...ours, 'image', 'mount', '--snapshotter', 'stargz', lazy, '/mnt')
        expect(await machine.do('cat', '/mnt/data/file')).toBe('data\n')
        await machine.do(...ours, 'image', 'unmount', '/mnt')

        const refused = await node('disable')
        expect(refused.exitCode).not.toBe(0)
        expect(refused.stderr).toContain('Cannot disable lazy pulling while containers use it: user (k8s.io)')
        await machine.do('ctr', '-n', 'k8s.io', 'containers', 'rm', 'user')
        const disabled = await node('disable')
        expect(disabled.exitCode, disabled.stderr).toBe(0)
        await machine.run('rmdir', dropIn)
        expect(await everything()).toBe(before)
      })
    })
  })
})
