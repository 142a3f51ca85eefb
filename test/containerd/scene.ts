// What the tests of the commands share: a real containerd, a registry with images, and a user who works with both.

import {join} from 'node:path'
import {expect} from 'vitest'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {serveRegistry} from '../../src/lib/registry-server/serve-registry.ts'
import {startContainerd, type TestContainerd} from '../support/containerd.ts'
import {createUser, type User} from '../support/ctr-remote.ts'
import {writeSampleIndex} from '../support/sample-image.ts'
import {writeShellImage} from '../support/shell-image.ts'

/** An image that is pulled and unpacked, and the flags that choose its namespace. */
export interface PulledApp {
  readonly ref: string
  readonly globals: readonly ['-n', string]
}

export interface Scene extends AsyncDisposable {
  readonly containerd: TestContainerd
  readonly user: User
  /** A registry with `app:1`, which prints `/data/file`, and `multi:1` for amd64 and arm64. */
  readonly host: string
  /** Runs a command that must succeed; resolves to its stdout without the last newline. */
  ok(...argv: readonly string[]): Promise<string>
  newNamespace(): string
  /** Pulls `app:1` into a namespace of its own. */
  withApp(): Promise<PulledApp>
  /** Checks that there is nothing that a command may leave: leases, ingests, containers, tasks, unfinished snapshots. */
  expectTidy(namespace: string): Promise<void>
}

export async function startScene(programs: string | undefined): Promise<Scene> {
  await using started = new AsyncDisposableStack()
  const containerd = started.use(await startContainerd({programs}))
  const user = started.use(
    await createUser({CTR_REMOTE_STORE: 'containerd', CONTAINERD_ADDRESS: containerd.address}),
  )
  const store = await openLocalStore(join(user.home, 'registry'))
  await using _ = await store.lease()
  const app = await writeShellImage(store.content, {Entrypoint: ['/bin/cat', '/data/file'], Cmd: []})
  await store.images.put('localhost/app:1', app)
  const {root} = await writeSampleIndex(store.content, ['amd64', 'arm64'])
  await store.images.put('localhost/multi:1', root)
  const host = started.use(await serveRegistry(store)).address
  let count = 0

  const scene: Scene = {
    containerd,
    user,
    host,
    async ok(...argv) {
      const {exitCode, stdout, stderr} = await user.run(...argv)
      expect(exitCode, `${argv.join(' ')}: ${stderr}`).toBe(0)
      return stdout.trimEnd()
    },
    newNamespace: () => `commands-${process.pid}-${++count}`,
    async withApp() {
      const globals = ['-n', scene.newNamespace()] as const
      const ref = `${host}/app:1`
      await scene.ok(...globals, 'image', 'pull', '-q', ref)
      return {ref, globals}
    },
    async expectTidy(namespace) {
      const ctr = (...args: string[]) => containerd.ctr('-n', namespace, ...args)
      expect(await ctr('leases', 'ls', '-q')).toBe('')
      expect(await ctr('content', 'active')).not.toContain('ctr-remote')
      expect(await ctr('containers', 'ls', '-q')).toBe('')
      expect(await ctr('tasks', 'ls', '-q')).toBe('')
      expect(await ctr('snapshots', 'ls')).not.toContain('Active')
    },
    [Symbol.asyncDispose]: async () => cleanUp.disposeAsync(),
  }
  const cleanUp = started.move()
  return scene
}
