// Converted layers in the hands of other programs: GNU tar unpacks them, the reference reads their TOC.

import {execFileSync, spawn} from 'node:child_process'
import {once} from 'node:events'
import {existsSync, readFileSync} from 'node:fs'
import {mkdir, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {gzipSync} from 'node:zlib'
import {expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import type {ConvertLayerOptions} from '../../src/lib/convert/convert-layer.ts'
import {codeOf, describeError} from '../../src/lib/errors/coded-error.ts'
import {createBulkCodec} from '../../src/lib/native/bulk-codec.ts'
import {OCI_LAYER, OCI_LAYER_GZIP} from '../../src/lib/oci/media-type.ts'
import {verifyLayer} from '../../src/lib/verify/verify-layer.ts'
import {convertTar} from '../support/layers.ts'
import {memoryBlob} from '../support/memory-content.ts'
import {describeWith} from '../support/requires.ts'
import {archive, directory, gnuLong, member, pax} from '../support/tar.ts'
import {temporaryDirectory} from '../support/temporary.ts'
import {ADDED_FILES, describeTree, unpackTar} from '../support/unpacked-tree.ts'

const VARIANTS: readonly [string, Partial<ConvertLayerOptions>][] = [
  ['by default', {}],
  ['in small chunks', {chunkSize: 50}],
  ['in streams of several chunks', {minChunkSize: 300, chunkSize: 50}],
]

describeWith(
  ['root', 'tar', 'getfattr'],
  'GNU tar unpacks a converted layer to the tree of its source',
  () => {
    const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex')
    const tar = archive(
      member({name: './', typeflag: '5', mode: 0o755, mtime: 1e9}),
      member({name: './d/', typeflag: '5', mode: 0o1777, uid: 3, gid: 4, mtime: 1e9}),
      pax({'SCHILY.xattr.security.capability': capability, mtime: '1600000000.123456789'}),
      member({name: './d/cap', mode: 0o755}, 'has a capability'),
      pax({uid: '4000000', gid: '5000000', 'SCHILY.xattr.trusted.overlay.opaque': 'y'}),
      member({name: './big-owner'}, 'x'.repeat(1000)),
      member({name: './hard', typeflag: '1', linkName: './d/cap'}),
      member({name: './sym', typeflag: '2', linkName: 'nowhere', mode: 0o777, mtime: 5}),
      member({name: './setuid', mode: 0o6755, uid: 1}, 's'),
      member({name: './null', typeflag: '3', devMajor: 1, devMinor: 3, mode: 0o666}),
      member({name: './loop', typeflag: '4', devMajor: 7, devMinor: 0}),
      member({name: './pipe', typeflag: '6'}),
      gnuLong('L', `./d/${'long-name-'.repeat(20)}`),
      member({name: 'cut', format: 'gnu'}, 'long'),
      member({name: Buffer.from([0x2e, 0x2f, 0xff, 0xfe])}, 'not UTF-8'),
    )
    it.each(VARIANTS)('%s', async (_, options) => {
      const source = describeTree(await unpackTar(tar))
      const layer = await convertTar(tar, options)
      expect(describeTree(await unpackTar(layer.tar, ADDED_FILES))).toBe(source)
    })
    it('in another order', async () => {
      const source = describeTree(await unpackTar(tar))
      const layer = await convertTar(tar, {prioritizedPaths: ['setuid', 'hard', 'd']})
      expect(describeTree(await unpackTar(layer.tar, ADDED_FILES))).toBe(source)
    })
  },
)

it('layers of random trees are sound, and hold the same files, whatever the options', async () => {
  let state = 42
  const random = (limit: number) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return (state >>> 8) % limit
  }
  for (let round = 0; round < 40; round++) {
    const names: string[] = []
    const members = Array.from({length: random(40)}, (_, index) => {
      const name = `${names.length > 0 && random(3) === 0 ? '' : 'd/'}${index}${'n'.repeat(random(20))}`
      names.push(name)
      const linkName = names[random(names.length - 1) || 0]!
      const kind = random(8)
      if (kind === 0 && linkName !== name) return member({name, typeflag: '1', linkName})
      if (kind === 1) return member({name, typeflag: '2', linkName: 'x'.repeat(random(90))})
      if (kind === 2)
        return Buffer.concat([pax({'SCHILY.xattr.user.a': 'v'.repeat(random(900))}), member({name})])
      return member({name, mode: random(0o7777), mtime: random(2 ** 30)}, 'text '.repeat(random(2000)))
    })
    const tar = archive(directory('d/'), ...members)
    const layer = await convertTar(tar, {
      chunkSize: 1 + random(5000),
      minChunkSize: random(2) * random(3000),
      prioritizedPaths: names.filter(() => random(4) === 0),
    })
    const {findings} = await verifyLayer(memoryBlob(layer.bytes), layer.descriptor, {
      codec: createBulkCodec(),
      diffId: layer.diffId,
    })
    expect(findings, `round ${round}`).toEqual([])
    expect(layer.paths.filter(path => !ADDED_FILES.includes(path)).sort()).toEqual(['d', ...names].sort())
  }
})

const REFERENCE = '/usr/bin/ctr-remote'

describeWith(['root', 'containerd', 'ctr', REFERENCE], 'the reference', () => {
  const tar = archive(
    directory('d/'),
    pax({'SCHILY.xattr.user.x': Buffer.from([0, 255])}),
    member({name: 'd/a', userName: 'me', mode: 0o755, mtime: 1e9}, 'a'.repeat(500)),
    member({name: 'b'}, 'b'.repeat(100)),
    member({name: 'hard', typeflag: '1', linkName: 'd/a'}),
    member({name: 'empty'}),
    member({name: '<&>ü\u2028'}, 'odd'),
  )
  it('reads the TOC of our layers, whose digest it agrees with, and writes the same JSON', async () => {
    const home = await temporaryDirectory()
    await using daemon = await startContainerd(home)
    for (const [name, options] of VARIANTS) {
      const layer = await convertTar(tar, {...options, prioritizedPaths: ['b']})
      await daemon.ingest(layer.bytes, layer.descriptor.digest)
      const said = daemon.run(REFERENCE, 'image', 'get-toc-digest', layer.descriptor.digest).trim()
      expect(said, name).toBe(layer.tocDigest)
      // Debian's version is older than innerOffset, which it leaves out when it writes the TOC again.
      if (options.minChunkSize) continue
      const dumped = daemon.run(REFERENCE, 'image', 'get-toc-digest', '--dump-toc', layer.descriptor.digest)
      expect(digestOf(dumped.replace(/\n$/, '')), name).toBe(layer.tocDigest)
    }
  })
})

interface Containerd extends AsyncDisposable {
  ingest(bytes: Uint8Array, digest: string): Promise<void>
  run(program: string, ...args: readonly string[]): string
}

/** A containerd of our own, with nothing but a content store. */
async function startContainerd(home: string): Promise<Containerd> {
  const address = join(home, 'containerd.sock')
  const config = join(home, 'config.toml')
  await mkdir(home, {recursive: true})
  await writeFile(
    config,
    `version = 2
root = ${JSON.stringify(join(home, 'root'))}
state = ${JSON.stringify(join(home, 'state'))}
# Without images everything is garbage, so nothing may collect it.
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.gc.v1.scheduler"]
[grpc]
  address = ${JSON.stringify(address)}
`,
  )
  const log = join(home, 'log')
  const daemon = spawn('sh', ['-c', 'exec containerd --config "$0" >"$1" 2>&1', config, log], {
    stdio: 'ignore',
  })
  const exited = once(daemon, 'exit')
  let running = true
  void exited.then(() => {
    running = false
  })
  // The daemon says when it serves by making its socket; `ctr version` waits for it to answer.
  while (running && !existsSync(address)) await new Promise(resolve => setTimeout(resolve, 20))
  if (!running) throw new Error(`containerd ended: ${readFileSync(log, 'utf8').slice(-2000)}`)
  const run = (program: string, ...args: readonly string[]) =>
    execFileSync(program, ['--address', address, ...args], {encoding: 'utf8'})
  run('ctr', 'version')
  return {
    run,
    async ingest(bytes, digest) {
      execFileSync('ctr', ['--address', address, 'content', 'ingest', '--expected-digest', digest, digest], {
        input: bytes,
      })
    },
    async [Symbol.asyncDispose]() {
      daemon.kill('SIGTERM')
      await exited
    },
  }
}

describeWith(['root', 'mount'], 'a full disk', () => {
  it.each([
    ['for the decompressed layer is said', OCI_LAYER],
    ['while a compressed source is read is said', OCI_LAYER_GZIP],
  ])('%s, with the place', async (_, mediaType) => {
    const full = await temporaryDirectory()
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', full])
    try {
      const tar = archive(member({name: 'big'}, Buffer.alloc(20 << 20, 'full')))
      const blob = mediaType === OCI_LAYER ? tar : gzipSync(tar)
      const failure = await convertTar(
        tar,
        {temporaryDirectory: full, maxUncompressedSize: 1 << 30},
        {blob, mediaType},
      ).catch(error => error)
      expect(codeOf(failure)).toBe('unavailable')
      expect(describeError(failure)).toContain(full)
      expect(describeError(failure)).toContain('ENOSPC')
    } finally {
      execFileSync('umount', [full])
    }
  })
})
