// Runs the examples of the library, which import the built package by its name.

import {execFile} from 'node:child_process'
import {once} from 'node:events'
import {readFileSync, writeFileSync} from 'node:fs'
import {createServer} from 'node:http'
import type {AddressInfo} from 'node:net'
import {join, resolve} from 'node:path'
import {promisify} from 'node:util'
import {gzipSync} from 'node:zlib'
import {beforeEach, expect, it} from 'vitest'
import {archive, directory, member} from '../support/tar.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const examples = resolve(import.meta.dirname, '../../examples/library')
const run = promisify(execFile)

let home: string
let descriptor: {annotations: Record<string, string>}

beforeEach(async () => {
  home = await temporaryDirectory()
  const tar = archive(directory('etc/'), member({name: 'etc/motd'}, 'hello\n'), member({name: 'first'}, '1'))
  writeFileSync(join(home, 'archive.tar.gz'), gzipSync(tar))
  const {stdout, stderr} = await example('build-layer.ts', 'archive.tar.gz', 'layer', 'first', 'gone')
  expect(stderr).toBe('not in the archive: gone\n')
  writeFileSync(join(home, 'descriptor.json'), stdout)
  descriptor = JSON.parse(stdout)
})

function example(name: string, ...words: readonly string[]) {
  return run(process.execPath, ['--disable-warning=ExperimentalWarning', join(examples, name), ...words], {
    cwd: home,
  })
}

it('list-layer.ts lists a layer and prints a file of it', async () => {
  const {stdout} = await example('list-layer.ts', 'layer')
  expect(stdout).toMatch(/^eStargz, TOC sha256:[0-9a-f]{64}\nreg 1 first\ndir 0 etc\nreg 6 etc\/motd\n$/)
  expect((await example('list-layer.ts', 'layer', 'etc/motd')).stdout).toBe('hello\n')
})

it('verify-layer.ts says whether a layer is sound', async () => {
  expect((await example('verify-layer.ts', 'layer', 'descriptor.json')).stdout).toBe(
    'eStargz: 3 files, 0 findings\n',
  )
  const bytes = readFileSync(join(home, 'layer'))
  bytes[bytes.length >> 1]! ^= 1
  writeFileSync(join(home, 'layer'), bytes)
  await expect(example('verify-layer.ts', 'layer', 'descriptor.json')).rejects.toMatchObject({code: 1})
})

it('read-over-http.ts reads a file from a web server', async () => {
  const layer = readFileSync(join(home, 'layer'))
  const server = createServer((request, response) => {
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? []
    if (request.method === 'HEAD') response.setHeader('content-length', layer.length).end()
    else response.writeHead(206).end(layer.subarray(Number(first), Number(last) + 1))
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  try {
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
    const tocDigest = descriptor.annotations['containerd.io/snapshot/stargz/toc.digest']!
    expect((await example('read-over-http.ts', url, tocDigest, 'etc/motd')).stdout).toBe('hello\n\n')
  } finally {
    server.closeAllConnections()
    server.close()
  }
})
