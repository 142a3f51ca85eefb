// Whatever ends in the middle leaves nothing: commands by Ctrl-C, commands killed, containerd killed. Each is broken in at
// stages all over its conversation with a real containerd.

import {mkdir, readdir, readFile} from 'node:fs/promises'
import {join} from 'node:path'
import {afterAll, beforeAll, expect, it} from 'vitest'
import {openContainerdStore} from '../../src/lib/containerd/store.ts'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {type RunningRegistry, serveRegistry} from '../../src/lib/registry-server/serve-registry.ts'
import {CONTAINERDS, startContainerd, type TestContainerd} from '../support/containerd.ts'
import {createUser, type User} from '../support/ctr-remote.ts'
import {describeWith} from '../support/requires.ts'
import {writeShellImage} from '../support/shell-image.ts'
import {type Stages, startStages} from '../support/stages.ts'
import {leftovers, listSnapshots, TIDY} from './scene.ts'

for (const {release, needs, programs} of CONTAINERDS) {
  // What differs between releases shows in few commands, at few stages, as well as in many.
  const isNewer = programs !== undefined
  const breaks = isNewer ? 3 : 5
  describeWith(['root', 'runc', ...needs], `broken in at, with ${release},`, () => {
    let containerd: TestContainerd
    let stages: Stages
    let user: User
    let registry: RunningRegistry
    let temporary: string
    let fifos: string
    let archive: string
    let target: string
    let ref: string
    let count = 0

    beforeAll(async () => {
      containerd = await startContainerd({programs})
      stages = await startStages(join(containerd.directory, 'stages.sock'), containerd.address)
      temporary = join(containerd.directory, 'tmp')
      target = join(containerd.directory, 'target')
      user = await createUser({
        CTR_REMOTE_STORE: 'containerd',
        CONTAINERD_ADDRESS: stages.address,
        TMPDIR: temporary,
      })
      fifos = join(containerd.directory, 'fifos')
      for (const directory of [temporary, target, fifos]) await mkdir(directory)
      const store = await openLocalStore(join(user.home, 'registry/images'))
      await using _ = await store.lease()
      await store.images.put('localhost/app:1', await writeShellImage(store.content))
      registry = await serveRegistry(store)
      ref = `${registry.address}/app:1`
      archive = join(user.home, 'app.tar')
      const local = ['--store', 'local', '--data-dir', join(user.home, 'registry')]
      await user.run(...local, 'image', 'export', '-q', archive, 'localhost/app:1')
    })
    afterAll(async () => {
      await stages?.[Symbol.asyncDispose]()
      await registry?.[Symbol.asyncDispose]()
      await user?.[Symbol.asyncDispose]()
      await containerd?.[Symbol.asyncDispose]()
    })

    const newNamespace = () => `interrupted-${process.pid}-${++count}`
    const open = (namespace: string) => openContainerdStore({address: containerd.address, namespace})

    /** What the user's commands may have left in containerd and on the machine. */
    async function allLeftovers(namespace: string): Promise<object> {
      const mounts = (await readFile('/proc/self/mountinfo', 'utf8'))
        .split('\n')
        .map(line => line.split(' ')[4] ?? '')
        .filter(path => path.startsWith(temporary) || path.startsWith(target))
      const files = [...(await readdir(temporary)), ...(await readdir(fifos))]
      return {...(await leftovers(containerd, namespace)), mounts, files}
    }

    const NOTHING = {...TIDY, mounts: [], files: []}

    /** Removes every image but `kept`, and what only they needed. */
    async function removeImages(namespace: string, kept?: string): Promise<void> {
      await using store = await open(namespace)
      for (const {name} of await store.images.list()) if (name !== kept) await store.images.remove(name)
      await store.collectGarbage()
    }

    /** Without images there is nothing. */
    async function expectEmpty(namespace: string): Promise<void> {
      await removeImages(namespace)
      expect(await allLeftovers(namespace)).toEqual(NOTHING)
      await using store = await open(namespace)
      expect(await listSnapshots(store.client)).toEqual([])
      expect(await containerd.ctr('-n', namespace, 'content', 'ls', '-q')).toBe('')
    }

    interface Command {
      readonly argv: () => readonly string[]
      /** Whether it needs the image, pulled and unpacked; else it brings it. */
      readonly needsImage: boolean
      /** Takes back what it has done. */
      readonly undo?: (namespace: string) => Promise<unknown>
    }

    const commands: Readonly<Record<string, Command>> = {
      pull: {argv: () => ['image', 'pull', '-q', ref], needsImage: false},
      import: {argv: () => ['image', 'import', '-q', archive], needsImage: false},
      convert: {
        argv: () => ['image', 'convert', '-q', '--oci', '--estargz', ref, 'converted:1'],
        needsImage: true,
      },
      optimize: {argv: () => ['image', 'optimize', '-q', '--oci', ref, 'optimized:1'], needsImage: true},
      push: {
        argv: () => ['image', 'push', '-q', `${registry.address}/pushed${++count}:1`, ref],
        needsImage: true,
      },
      run: {
        argv: () => ['run', '--rm', '--fifo-dir', fifos, ref, `broken-${count}`, 'sh', '-c', 'exit 0'],
        needsImage: true,
      },
      mount: {
        argv: () => ['image', 'mount', ref, target],
        needsImage: true,
        undo: namespace => run(namespace, ['image', 'unmount', '--rm', target]),
      },
    }

    const start = (namespace: string, argv: readonly string[]) => user.start('-n', namespace, ...argv)

    async function run(namespace: string, argv: readonly string[]): Promise<void> {
      const {exitCode, stderr} = await start(namespace, argv).finished
      expect(exitCode, `${argv.join(' ')}: ${stderr}`).toBe(0)
    }

    /** A namespace where the command has run once, and how many stages that had. */
    async function prepare({argv, needsImage, undo}: Command): Promise<{namespace: string; length: number}> {
      const namespace = newNamespace()
      if (needsImage) await run(namespace, ['image', 'pull', '-q', ref])
      stages.at(0, () => {})
      await run(namespace, argv())
      const length = stages.count
      await undo?.(namespace)
      await removeImages(namespace, needsImage ? ref : undefined)
      return {namespace, length}
    }

    /** Stages all over a conversation, the first and the last included. */
    const spread = (length: number, number: number): readonly number[] =>
      Array.from({length: number}, (_, index) => 1 + Math.floor((index * (length - 1)) / (number - 1)))

    it.each(isNewer ? ['pull', 'run', 'mount'] : Object.keys(commands))(
      'by Ctrl-C, %s leaves nothing, and works when run again',
      async name => {
        const command = commands[name]!
        const {namespace, length} = await prepare(command)
        const exitCodes = new Set<number>()
        for (const stage of spread(length, breaks)) {
          const running = start(namespace, command.argv())
          stages.at(stage, () => void running.child.kill('SIGINT'))
          const {exitCode, stderr} = await running.finished
          expect(exitCode === 130 || stderr === '', `stage ${stage}: ${exitCode} ${stderr}`).toBe(true)
          exitCodes.add(exitCode)
          if (exitCode === 0) await command.undo?.(namespace)
          expect(await allLeftovers(namespace), `stage ${stage} of ${length}: ${exitCode}`).toEqual(NOTHING)
          if (!command.needsImage) await removeImages(namespace)
        }
        expect(exitCodes).toContain(130)
        await run(namespace, command.argv())
        await command.undo?.(namespace)
        await expectEmpty(namespace)
      },
    )

    it.each(isNewer ? ['pull'] : ['pull', 'import', 'convert', 'optimize'])(
      'by a kill, %s leaves nothing that its next run does not tidy up',
      async name => {
        const command = commands[name]!
        const {namespace, length} = await prepare(command)
        let killed = 0
        for (const stage of spread(length, breaks + 1).slice(1, -1)) {
          const running = start(namespace, command.argv())
          stages.at(stage, () => void running.child.kill('SIGKILL'))
          // A conversation of fewer pieces than the first one was over before.
          await running.finished.catch(error => {
            expect(String(error)).toMatch(/SIGKILL/)
            killed += 1
          })
          stages.at(0, () => {})
        }
        expect(killed).toBeGreaterThan(0)
        await run(namespace, command.argv())
        await expectEmpty(namespace)
      },
    )

    it.each(isNewer ? ['convert'] : ['pull', 'convert', 'push'])(
      'by the death of containerd, %s says so, and works when run again',
      async name => {
        const command = commands[name]!
        const {namespace, length} = await prepare(command)
        let died = 0
        for (const stage of spread(length, breaks + 1).slice(1, -1)) {
          const running = start(namespace, command.argv())
          stages.at(stage, () => containerd.kill())
          const {exitCode, stderr} = await running.finished
          stages.at(0, () => {})
          // It may have been over before, or have needed containerd no more.
          if (exitCode !== 0) {
            died += 1
            expect({exitCode, stderr}, `stage ${stage} of ${length}`).toEqual({
              exitCode: 8,
              stderr: expect.stringMatching(/^ctr-remote: Cannot .*(containerd ".*"|socket ".*")/),
            })
          }
          await containerd.kill()
          await containerd.restart()
        }
        expect(died).toBeGreaterThan(0)
        await run(namespace, command.argv())
        await expectEmpty(namespace)
      },
    )
  })
}
