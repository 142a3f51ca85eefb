// What the tests of the commands share: a real containerd, a registry with images, and a user who works with both.

import {join} from 'node:path'
import {expect} from 'vitest'
import {type ContainerdClient, connectContainerd} from '../../src/lib/containerd/client.ts'
import {Containers} from '../../src/lib/containerd/proto/containers_pb.ts'
import {Content} from '../../src/lib/containerd/proto/content_pb.ts'
import {Leases} from '../../src/lib/containerd/proto/leases_pb.ts'
import {Snapshots} from '../../src/lib/containerd/proto/snapshots_pb.ts'
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
  /** Checks that there is nothing that a command may leave. */
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
    expectTidy: async namespace => expect(await leftovers(containerd, namespace)).toEqual(TIDY),
    [Symbol.asyncDispose]: async () => cleanUp.disposeAsync(),
  }
  const cleanUp = started.move()
  return scene
}

/** Names of what commands make for a while: in a namespace there is none of it between two commands. */
export interface Leftovers {
  readonly leases: readonly string[]
  readonly ingests: readonly string[]
  readonly containers: readonly string[]
  readonly tasks: readonly string[]
  readonly unfinishedSnapshots: readonly string[]
}

export const TIDY: Leftovers = {leases: [], ingests: [], containers: [], tasks: [], unfinishedSnapshots: []}

/** The kind of a snapshot that can be built upon. */
const COMMITTED = 3

export async function leftovers(containerd: TestContainerd, namespace: string): Promise<Leftovers> {
  using client = await connectContainerd({address: containerd.address, namespace})
  const doing = 'look'
  const {leases} = await client.call(Leases.method.list, {}, {doing})
  const {statuses} = await client.call(Content.method.listStatuses, {}, {doing})
  const {containers} = await client.call(Containers.method.list, {}, {doing})
  const tasks = await containerd.ctr('-n', namespace, 'tasks', 'ls', '-q')
  return {
    leases: leases.map(({id}) => id),
    ingests: statuses.map(({ref}) => ref),
    containers: containers.map(({id}) => id),
    tasks: tasks.split('\n').filter(Boolean),
    unfinishedSnapshots: (await listSnapshots(client))
      .filter(({kind}) => kind !== COMMITTED)
      .map(({name}) => name),
  }
}

/** Snapshots of overlayfs. */
export async function listSnapshots(client: ContainerdClient): Promise<{name: string; kind: number}[]> {
  const found: {name: string; kind: number}[] = []
  const request = {snapshotter: 'overlayfs'}
  for await (const {info} of client.stream(Snapshots.method.list, request, {doing: 'list snapshots'})) {
    found.push(...info.map(({name, kind}) => ({name, kind})))
  }
  return found
}
