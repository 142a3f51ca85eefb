// What the suites of lazy pulls have in common: a registry with an image, as it was built and converted, a snapshotter,
// and a containerd that knows it.

import {mkdir, mkdtemp} from 'node:fs/promises'
import {join} from 'node:path'
import {describe, expect} from 'vitest'
import {openContainerdStore} from '../../src/lib/containerd/store.ts'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {mountImage, unmountImage} from '../../src/lib/mount-image/mount-image.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import type {ImageConfig, ImageManifest} from '../../src/lib/oci/manifest.ts'
import {OCI_MANIFEST} from '../../src/lib/oci/media-type.ts'
import {hostPlatform} from '../../src/lib/oci/platform.ts'
import {findImage} from '../../src/lib/transport/store-image.ts'
import {describeTree, type TreeDescription} from '../conformance-mount/describe-tree.ts'
import {hasErofs} from '../conformance-mount/open-backend.ts'
import {stargzPlugin, startContainerd, type TestContainerd} from '../support/containerd.ts'
import {createUser, type User} from '../support/ctr-remote.ts'
import {type FaultyRegistry, startFaultyRegistry} from '../support/faulty-registry.ts'
import {describeWith} from '../support/requires.ts'
import {readBlob, writeBlob} from '../support/sample-image.ts'
import {
  snapshotterAddress,
  snapshotterDirectory,
  startSnapshotter,
  type TestSnapshotter,
} from '../support/snapshotter.ts'
import {lazyImage} from './lazy-image.ts'

export interface StageOptions {
  readonly backend: 'auto' | 'erofs' | 'fuse'
  /** Further lines of the snapshotter's configuration. */
  readonly config?: string
  /** The directory of containerd's programs; by default they are those of the PATH. */
  readonly programs?: string | undefined
  /** Further lines of containerd's configuration. */
  readonly containerdConfig?: string
  /** The snapshotter's directory; by default a fresh one. */
  readonly directory?: string
  /** Of the snapshotter and of `ctr-remote`. */
  readonly env?: Readonly<Record<string, string>>
  /** A command that becomes the snapshotter. */
  readonly under?: readonly string[]
}

export interface Stage extends AsyncDisposable {
  readonly registry: FaultyRegistry
  readonly snapshotter: TestSnapshotter
  readonly containerd: TestContainerd
  readonly user: User
  /** The image as it was built: `app:plain`. */
  readonly plain: string
  /** The same as eStargz: `app:esgz`. */
  readonly lazy: string
  readonly lazyManifest: ImageManifest
  /** Lazy layers, and one that cannot be, below others: `app:mixed`. */
  readonly mixed: string
  /** Runs `ctr-remote` against containerd; fails the test unless it succeeds. */
  ctrRemote(namespace: string, ...argv: readonly string[]): Promise<string>
  ctr(namespace: string, ...argv: readonly string[]): Promise<string>
  /** Mounts an image of a namespace where it can be read, until disposed. */
  mount(
    namespace: string,
    snapshotter: string,
    ref: string,
  ): Promise<AsyncDisposable & {readonly path: string}>
  /** The tree of an image of a namespace. */
  tree(namespace: string, snapshotter: string, ref: string): Promise<TreeDescription>
}

/** A suite for each mount backend; where the kernel cannot have one, it is skipped under a name that says so. */
export function describeBackends(title: string, body: (backend: 'erofs' | 'fuse') => void): void {
  const needs = ['root', 'containerd', 'ctr', 'runc']
  describeWith(needs, `${title}, with fuse`, () => body('fuse'))
  if (hasErofs || process.getuid?.() !== 0) describeWith(needs, `${title}, with erofs`, () => body('erofs'))
  else
    describe.skip(`${title}, with erofs (not run: this kernel mounts no EROFS images from files)`, () => {})
}

/** The layer of `app:mixed` that cannot be lazy. */
export const PLAIN_LAYER = 1

/** Sets everything up; needs root. Whoever opens a stage disposes it. */
export async function openStage(options: StageOptions): Promise<Stage> {
  await using undo = new AsyncDisposableStack()
  const user = undo.use(await createUser(options.env))
  const registry = undo.use(await startFaultyRegistry())
  const lazyManifest = await fillRegistry(registry, user)
  const directory = options.directory ?? (await snapshotterDirectory())
  const snapshotter = undo.use(
    await startSnapshotter({
      directory,
      ...(options.under ? {under: options.under} : {}),
      env: options.env ?? {},
      config: `mount_backend = "${options.backend}"\n${options.config ?? ''}`,
    }),
  )
  const containerd = undo.use(
    await startContainerd({
      programs: options.programs,
      config: `${stargzPlugin(snapshotterAddress(directory))}${options.containerdConfig ?? ''}`,
    }),
  )
  const ctr = (namespace: string, ...argv: readonly string[]) => containerd.ctr('-n', namespace, ...argv)
  undo.defer(() => removeImages(containerd))

  async function ctrRemote(namespace: string, ...argv: readonly string[]): Promise<string> {
    const globals = ['--store', 'containerd', '-a', containerd.address, '-n', namespace]
    const {exitCode, stdout, stderr} = await user.run(...globals, ...argv)
    expect(exitCode, `${argv.join(' ')}: ${stderr}`).toBe(0)
    return stdout
  }

  async function mount(namespace: string, name: string, ref: string) {
    await mkdir(join(user.home, 'mounts'), {recursive: true})
    const path = await mkdtemp(join(user.home, 'mounts/m-'))
    await using store = await openContainerdStore({address: containerd.address, namespace})
    const image = await findImage(store, ref)
    const {signal} = new AbortController()
    const options = {target: path, platform: hostPlatform(), snapshotter: name, writable: false, signal}
    // Not `ctr images mount`: that of 1.6 takes overlayfs whatever it is told.
    await mountImage(store, image, options)
    return {
      path,
      async [Symbol.asyncDispose]() {
        await using again = await openContainerdStore({address: containerd.address, namespace})
        await unmountImage(again, path, {remove: true, snapshotter: name})
      },
    }
  }

  const stage = {
    registry,
    snapshotter,
    containerd,
    user,
    plain: `${registry.host}/app:plain`,
    lazy: `${registry.host}/app:esgz`,
    lazyManifest,
    mixed: `${registry.host}/app:mixed`,
    ctrRemote,
    ctr,
    mount,
    async tree(namespace: string, name: string, ref: string) {
      await using mounted = await mount(namespace, name, ref)
      return await treeAt(mounted.path)
    },
  }
  const owned = undo.move()
  return {...stage, [Symbol.asyncDispose]: () => owned.disposeAsync()}
}

/** The tree of a mounted image; containerd leaves the root's time as it is when a layer is unpacked. */
export async function treeAt(path: string): Promise<TreeDescription> {
  const {'.': root = '', ...rest} = await describeTree(path)
  return {...rest, '.': root.replace(/ \d+ns/, '')}
}

/** What a directory of a described tree is, seen from itself; hard links must not lead out of it. */
export function below(tree: TreeDescription, directory: string): TreeDescription {
  const entries = Object.entries(tree).filter(
    ([path]) => path === directory || path.startsWith(`${directory}/`),
  )
  return Object.fromEntries(entries.map(([path, text]) => [path.slice(directory.length + 1) || '.', text]))
}

/** Builds the image, converts it, and puts both into the registry; resolves to the converted one's manifest. */
async function fillRegistry(registry: FaultyRegistry, user: User): Promise<ImageManifest> {
  const image = await lazyImage()
  await using store = await openLocalStore(join(user.home, '.local/share/ctr-remote/images'))
  {
    await using _ = await store.lease()
    for (const bytes of image.content.blobs.values()) await writeBlob(store.content, bytes)
    const root = await writeBlob(store.content, Buffer.from(JSON.stringify(image.manifest)), OCI_MANIFEST)
    await store.images.put('localhost/app:plain', root)
  }
  const {exitCode, stderr} = await user.run(
    ...['image', 'convert', '--oci', '--estargz', 'localhost/app:plain', 'localhost/app:esgz'],
  )
  expect(exitCode, stderr).toBe(0)
  const read = async (tag: string): Promise<PushedImage> => {
    const {target} = (await store.images.get(`localhost/app:${tag}`))!
    const manifest: ImageManifest = JSON.parse((await readBlob(store.content, target)).toString())
    return {manifest, config: JSON.parse((await readBlob(store.content, manifest.config)).toString())}
  }
  const plain = await read('plain')
  const lazy = await read('esgz')
  for (const {manifest} of [plain, lazy]) {
    const blobs: readonly Descriptor[] = [manifest.config, ...manifest.layers]
    for (const blob of blobs) registry.addBlob('app', await readBlob(store.content, blob), blob.mediaType)
  }
  registry.addManifest('app', 'plain', plain.manifest)
  registry.addManifest('app', 'esgz', lazy.manifest)
  pushMixed(registry, lazy, plain)
  return lazy.manifest
}

interface PushedImage {
  readonly manifest: ImageManifest
  readonly config: ImageConfig
}

/** `lazy`, but with the layer at `PLAIN_LAYER` as it was built. */
function pushMixed(registry: FaultyRegistry, lazy: PushedImage, plain: PushedImage): void {
  const layers = lazy.manifest.layers.with(PLAIN_LAYER, plain.manifest.layers[PLAIN_LAYER]!)
  const diffIds = lazy.config.rootfs.diff_ids.with(PLAIN_LAYER, plain.config.rootfs.diff_ids[PLAIN_LAYER]!)
  const document = {...lazy.config, rootfs: {...lazy.config.rootfs, diff_ids: diffIds}}
  const config = registry.addBlob(
    'app',
    Buffer.from(JSON.stringify(document)),
    lazy.manifest.config.mediaType,
  )
  const manifest: ImageManifest = {...lazy.manifest, config, layers}
  registry.addManifest('app', 'mixed', manifest)
}

/** Images go before their snapshotter: otherwise it would keep their layers for its next start. */
async function removeImages(containerd: TestContainerd): Promise<void> {
  const words = (text: string) => text.split('\n').filter(Boolean)
  for (const namespace of words(await containerd.ctr('namespaces', 'ls', '-q'))) {
    for (const container of words(await containerd.ctr('-n', namespace, 'containers', 'ls', '-q'))) {
      await containerd.ctr('-n', namespace, 'tasks', 'rm', '--force', container).catch(() => '')
      await containerd.ctr('-n', namespace, 'containers', 'rm', container)
    }
    const images = words(await containerd.ctr('-n', namespace, 'images', 'ls', '-q'))
    if (images.length > 0) await containerd.ctr('-n', namespace, 'images', 'rm', '--sync', ...images)
  }
}
