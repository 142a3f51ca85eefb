// Runs what examples/ shows, as a reader would: the scripts on a small image, the quickstart on a real one.

import {execFileSync, spawn} from 'node:child_process'
import {once} from 'node:events'
import {mkdtemp, readdir, readFile, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join, resolve} from 'node:path'
import {createInterface} from 'node:readline'
import {afterAll, beforeAll, describe, expect, it} from 'vitest'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {createLayoutTarget} from '../../src/lib/layout/oci-directory.ts'
import {type RunningRegistry, serveRegistry} from '../../src/lib/registry-server/serve-registry.ts'
import {createUser, type User} from '../support/ctr-remote.ts'
import {describeWith} from '../support/requires.ts'
import {writeShellImage} from '../support/shell-image.ts'

const examples = resolve(import.meta.dirname, '../../examples')

let user: User
let directory: string
/** A layout with an image that runs, `oci:` understood. */
let layout: string

beforeAll(async () => {
  user = await createUser()
  directory = await mkdtemp(join(tmpdir(), 'ctr-remote-examples-'))
  layout = join(directory, 'source')
  await using target = await createLayoutTarget({path: layout, tag: 'latest'})
  await target.publish(await writeShellImage(target.content, {Cmd: ['/bin/sh', '-c', 'cat /data/file']}))
})
afterAll(async () => {
  await user?.[Symbol.asyncDispose]()
  await rm(directory, {recursive: true, force: true})
})

/** Runs an example, with nothing of this user's; it must succeed. Resolves to its stdout and stderr. */
async function runExample(command: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<string> {
  const [file, ...words] = command
  const child = spawn(join(examples, file!), words, {
    env: {PATH: process.env.PATH, HOME: user.home, CTR_REMOTE_STORE: 'local', ...env},
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', text => {
      output += text
    })
  }
  const [code] = await once(child, 'close')
  expect(code, output).toBe(0)
  return output
}

async function verify(place: string): Promise<void> {
  const {exitCode, stderr} = await user.run('image', 'verify', place)
  expect(exitCode, stderr).toBe(0)
}

/** Names in the lowest layer of a layout's one image, in their order. */
async function entriesOf(path: string): Promise<string[]> {
  const blob = (digest: string) => join(path, 'blobs', digest.replace(':', '/'))
  const index = JSON.parse(await readFile(join(path, 'index.json'), 'utf8'))
  const manifest = JSON.parse(await readFile(blob(index.manifests[0].digest), 'utf8'))
  return execFileSync('tar', ['-tzf', blob(manifest.layers[0].digest)], {encoding: 'utf8'}).split('\n')
}

describe('examples without root', () => {
  it('convert-layout.sh converts a layout', async () => {
    const target = join(directory, 'converted')
    expect(await runExample(['convert-layout.sh', layout, `${target}:esgz`])).toMatch(/sha256:[0-9a-f]{64}/)
    await verify(`oci:${target}:esgz`)
  })

  it('prefetch-list.sh puts the files of the list first', async () => {
    const target = `oci:${join(directory, 'listed')}:esgz`
    await runExample(['prefetch-list.sh', `oci:${layout}`, target])
    await verify(target)
    const first = await entriesOf(join(directory, 'listed'))
    expect(first.indexOf('.prefetch.landmark')).toBeGreaterThan(first.indexOf('./bin/sh'))
    expect(first.indexOf('./bin/cat')).toBeGreaterThan(first.indexOf('.prefetch.landmark'))
  })
})

describeWith(['root', 'runc'], 'examples that watch a workload', () => {
  let registry: RunningRegistry

  beforeAll(async () => {
    const store = await openLocalStore(join(directory, 'store'))
    registry = await serveRegistry(store)
  })
  afterAll(() => registry?.[Symbol.asyncDispose]())

  it('ci-job.sh optimizes from registry to registry, and again from what it made', async () => {
    const [source, target] = [`${registry.address}/app:1`, `${registry.address}/app:1-esgz`]
    const pushed = await user.run('image', 'push', source, `oci:${layout}`)
    expect(pushed.exitCode, pushed.stderr).toBe(0)
    await runExample(['ci-job.sh', source, target, 'data'])
    await runExample(['ci-job.sh', target, target, 'data'])
    await verify(`docker://${target}`)
  })

  it('record-reuse.sh writes a record once and reads it after that', async () => {
    const record = join(directory, 'record.json')
    const [first, second] = ['first', 'second'].map(name => `oci:${join(directory, name)}:esgz`) as [
      string,
      string,
    ]
    await runExample(['record-reuse.sh', record, `oci:${layout}`, first])
    const written = await readFile(record, 'utf8')
    expect(written).toContain('"path":"data/file"')
    await runExample(['record-reuse.sh', record, `oci:${layout}`, second])
    expect(await readFile(record, 'utf8')).toBe(written)
    await verify(second)
  })
})

describeWith(['root', 'runc', 'containerd', 'ctr', 'debootstrap', 'getfattr'], 'the quickstart', () => {
  // Its image is made once, of packages from a Debian mirror, and is kept in the cache of whoever runs the tests.
  const cache = {HOME: process.env.HOME, XDG_CACHE_HOME: process.env.XDG_CACHE_HOME}

  it('optimizes a real image for its workload and starts it lazily, in lines that fit a terminal', {
    timeout: 600_000,
  }, async () => {
    const output = await runExample(
      ['../node_modules/.bin/node', join(examples, 'quickstart/quickstart.ts')],
      {TMPDIR: directory, ...cache},
    )
    expect(output).toContain('{"hello": "world"')
    expect(output).toMatch(/A lazily pulled container starts after [\d.]+ MB of [\d.]+ MB/)
    expect(output).toMatch(/layer 4 +\/app\/hello\.py|and \d+ more/)
    expect(output).toMatch(/full pull[│ ]+[\d.]+ s.*MB in \d+ requests/)
    expect(output).toMatch(/lazy[│ ]+[\d.]+ s.*MB in \d+ requests/)
    const [, report = ''] = /open\n +(\S+report\.html)\n/.exec(output) ?? []
    expect(await readFile(report, 'utf8')).toMatch(/<h2>Timeline<\/h2>/)
    expect(output.split('\n').filter(line => line.length > 100)).toEqual([])
    expect(await leftovers()).toEqual([])
  })

  it('leaves nothing behind when it is interrupted in the middle of a lazy pull', {
    timeout: 600_000,
  }, async () => {
    const child = spawn(
      join(examples, '../node_modules/.bin/node'),
      [join(examples, 'quickstart/quickstart.ts')],
      {
        env: {PATH: process.env.PATH, TMPDIR: directory, ...cache},
        stdio: ['ignore', 'pipe', 'ignore'],
      },
    )
    const closed = once(child, 'close')
    for await (const line of createInterface({input: child.stdout})) {
      if (line.includes('image rpull')) child.kill('SIGINT')
    }
    expect(await closed).toEqual([130, null])
    expect(await leftovers()).toEqual([])
  })

  /** Directories of the quickstart, and mounts in them. */
  async function leftovers(): Promise<string[]> {
    const mounts = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n')
    const names = [...(await readdir(directory)), ...mounts.filter(mount => mount.includes(directory))]
    return names.filter(name => name.includes('ctr-remote-quickstart-'))
  }
})
