// One image, converted into every format, in the hands of all who unpack it: podman, containerd and our own extraction must
// come to the same tree, that of the source.

import {execFile} from 'node:child_process'
import {mkdtemp, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {promisify} from 'node:util'
import {afterAll, beforeAll, expect, it} from 'vitest'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {unmountBelow} from '../../src/lib/mount/mounts.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import type {Store} from '../../src/lib/oci/image-store.ts'
import {parseImageDocument} from '../../src/lib/oci/manifest.ts'
import {type RunningRegistry, serveRegistry} from '../../src/lib/registry-server/serve-registry.ts'
import {mountImageRootfs} from '../../src/lib/rootfs/image-rootfs.ts'
import {runnableImage} from '../support/busybox-image.ts'
import {startContainerd, type TestContainerd} from '../support/containerd.ts'
import {createUser, type User} from '../support/ctr-remote.ts'
import {describeWith} from '../support/requires.ts'
import {readBlob, writeBlob} from '../support/sample-image.ts'
import {archive, directory, gnuLong, member, pax} from '../support/tar.ts'
import {temporaryDirectory} from '../support/temporary.ts'
import {ADDED_FILES, describeTree} from '../support/unpacked-tree.ts'

const run = promisify(execFile)

/** A lower layer with all that images have, and one that changes, hides and adds. */
const LAYERS = [
  archive(
    directory('./'),
    member({name: './d/', typeflag: '5', mode: 0o1777, uid: 3, gid: 4, mtime: 1e9}),
    pax({'SCHILY.xattr.security.capability': Buffer.from('0100000200200000000000000000000000000000', 'hex')}),
    member({name: './d/capable', mode: 0o755, mtime: 1e9}, 'x'.repeat(9000)),
    member({name: './d/linked', uid: 9, mtime: 1e9}, 'of two names'),
    member({name: './d/setuid', mode: 0o6755, uid: 1}, 's'),
    pax({uid: '4000000', gid: '5000000', mtime: '16.5'}),
    member({name: './owned'}, 'by somebody large'),
    // Runtimes give a hard link's own attributes to the file; containerd takes its capabilities then.
    member({name: './link', typeflag: '1', linkName: './d/linked', uid: 9, mtime: 1e9}),
    member({name: './symlink', typeflag: '2', linkName: 'd/capable', mtime: 5}),
    member({name: './null', typeflag: '3', devMajor: 1, devMinor: 3, mode: 0o666}),
    member({name: './pipe', typeflag: '6'}),
    member({name: './empty'}),
    gnuLong('L', `./d/${'long'.repeat(40)}`),
    member({name: 'cut', format: 'gnu'}, 'l'),
    member({name: './hidden/', typeflag: '5', mode: 0o755}),
    member({name: './hidden/a'}, 'a'),
    member({name: './gone'}, 'gone'),
  ),
  archive(
    member({name: 'd/', typeflag: '5', mode: 0o750, mtime: 2e9 / 2}),
    member({name: 'd/setuid', mode: 0o600}, 'not any more'),
    member({name: 'hidden/', typeflag: '5', mode: 0o700, mtime: 7}),
    member({name: 'hidden/.wh..wh..opq'}),
    member({name: 'hidden/b'}, 'b'),
    member({name: '.wh.gone'}),
    member({name: 'new'}, 'new'),
  ),
]

/** The flags of `convert`, by the tag of what they make. */
const CONVERSIONS: Readonly<Record<string, readonly string[]>> = {
  esgz: ['--estargz', '--oci'],
  chunks: ['--estargz', '--oci', '--estargz-chunk-size', '1000'],
  min: ['--estargz', '--oci', '--estargz-min-chunk-size', '5000', '--estargz-chunk-size', '2000'],
  external: ['--estargz', '--oci', '--estargz-external-toc'],
  lossless: ['--estargz', '--oci', '--estargz-external-toc', '--estargz-keep-diff-id'],
  zstdchunked: ['--zstdchunked', '--oci'],
  zstd: ['--zstd', '--oci'],
  gzip: ['--gzip'],
  tar: ['--uncompress'],
}

describeWith(['root', 'podman', 'containerd', 'ctr', 'getfattr'], 'the tree of an image', () => {
  let home: string
  let user: User
  let store: Store
  let registry: RunningRegistry
  let containerd: TestContainerd
  /** What each of the three makes of the source. */
  let expected: string

  beforeAll(async () => {
    home = await mkdtemp(join(tmpdir(), 'ctr-remote-peers-'))
    user = await createUser()
    store = await openLocalStore(join(home, 'store'))
    await using _ = await store.lease()
    const image = await runnableImage(LAYERS)
    let root: Descriptor | undefined
    for (const [digest, bytes] of image.content.blobs) {
      const written = await writeBlob(store.content, bytes)
      if (digest === image.manifestDigest) root = {...written, mediaType: image.manifest.mediaType!}
    }
    await store.images.put('localhost/app:plain', root!)
    registry = await serveRegistry(store)
    containerd = await startContainerd()
    expected = await ours('plain')
    expect(expected.split('\n').length).toBeGreaterThan(25)
    await Promise.all(
      Object.entries(CONVERSIONS).map(async ([tag, flags]) => {
        const [source, target] = [
          `docker://${registry.address}/app:plain`,
          `docker://${registry.address}/app:${tag}`,
        ]
        const {exitCode, stderr} = await user.run('image', 'convert', ...flags, source, target)
        expect(exitCode, `${tag}: ${stderr}`).toBe(0)
      }),
    )
  })
  afterAll(async () => {
    await containerd?.[Symbol.asyncDispose]()
    await registry?.[Symbol.asyncDispose]()
    await store?.[Symbol.asyncDispose]()
    await user?.[Symbol.asyncDispose]()
    await rm(home, {recursive: true, force: true})
  })

  /** But for what conversion adds, and for the root itself, which each makes in its own way. */
  function describeImage(path: string): string {
    const isOther = (line: string) =>
      !ADDED_FILES.some(name => line.includes(`./${name}`)) && !line.startsWith('. ')
    return describeTree(path).split('\n').filter(isOther).join('\n')
  }

  async function ours(tag: string): Promise<string> {
    const image = await store.images.get(`localhost/app:${tag}`)
    const {target} = image!
    const document = parseImageDocument(await readBlob(store.content, target), target.mediaType, tag)
    if (document.kind !== 'manifest') throw new Error(`${tag} is an index`)
    const {manifest} = document
    const config = JSON.parse(String(await readBlob(store.content, manifest.config)))
    const base = await mkdtemp(join(home, 'ours-'))
    try {
      const {path} = await mountImageRootfs({content: store.content, manifest, config}, base)
      return describeImage(path)
    } finally {
      await unmountBelow(base)
      await rm(base, {recursive: true})
    }
  }

  async function podmans(tag: string): Promise<string> {
    const base = await temporaryDirectory()
    const podman = async (...args: readonly string[]) => {
      const globals = [
        '--root',
        join(base, 'root'),
        '--runroot',
        join(base, 'run'),
        '--storage-driver',
        'vfs',
      ]
      return (await run('podman', [...globals, ...args])).stdout.trim()
    }
    const reference = `${registry.address}/app:${tag}`
    await podman('pull', '-q', '--tls-verify=false', reference)
    const path = await podman('image', 'mount', reference)
    const tree = describeImage(path)
    await podman('image', 'unmount', reference)
    await podman('rmi', reference)
    return tree
  }

  async function containerds(tag: string): Promise<string> {
    const reference = `${registry.address}/app:${tag}`
    const path = await temporaryDirectory()
    await containerd.ctr('image', 'pull', '--plain-http', reference)
    await containerd.ctr('image', 'mount', reference, path)
    try {
      return describeImage(path)
    } finally {
      await run('umount', [path])
    }
  }

  it.each(['plain', ...Object.keys(CONVERSIONS)])(
    '%s is the same for podman, containerd and us',
    async tag => {
      expect(await ours(tag)).toBe(expected)
      expect(await podmans(tag)).toBe(expected)
      expect(await containerds(tag)).toBe(expected)
    },
  )
})
