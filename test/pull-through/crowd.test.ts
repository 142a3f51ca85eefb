// Two hundred clients who pull one image, of which nothing is converted yet, through the built program at once.

import {randomBytes} from 'node:crypto'
import {readFile} from 'node:fs/promises'
import {Agent, request as httpRequest, type IncomingHttpHeaders} from 'node:http'
import {expect, it, onTestFinished, vi} from 'vitest'
import {createDigester, digestOf} from '../../src/lib/blob/sha256.ts'
import type {ImageManifest} from '../../src/lib/oci/manifest.ts'
import {send} from '../registry-server/support.ts'
import {createUser} from '../support/ctr-remote.ts'
import {PATIENTLY} from '../support/patience.ts'
import {ACCEPT, addSampleImage, startUpstream} from './support.ts'

const CLIENTS = 200
const LAYER_SIZE = 2 * 1024 * 1024
/** All answers in memory would be more than this alone. */
const MAX_MEMORY = 384 * 1024 * 1024

it('one conversion, no wrong byte, no client that waits for it, and no memory for each of them', async () => {
  const upstream = await startUpstream()
  const {root, config} = await addSampleImage(upstream, 'app', '1', {
    layers: [{noise: randomBytes(LAYER_SIZE)}, {'b.txt': 'b\n'}],
  })
  const user = await createUser()
  onTestFinished(() => user[Symbol.asyncDispose]())
  const flags = ['--upstream', upstream.host, '--platform', 'linux/amd64', '--quiet']
  const running = user.start('registry', 'serve', '--listen', '127.0.0.1:0', ...flags)
  onTestFinished(async () => {
    running.child.kill('SIGKILL')
    await running.finished.catch(() => {})
  })
  const url = await running.line('stdout', /^http/)

  // The first has it converted, which comes no further than to the first blob until all others have what they came for.
  upstream.inject({url: new RegExp(config.digest)}, {kind: 'stall', afterBytes: 1})
  await send(`${url}/v2/app/manifests/1`, 'GET', {headers: ACCEPT})
  const isAsked = () => upstream.requests.some(request => request.url.includes(config.digest))
  await vi.waitUntil(isAsked, PATIENTLY)
  const agent = new Agent({keepAlive: true, maxSockets: CLIENTS})
  onTestFinished(() => agent.destroy())
  const pulled = await Promise.all(Array.from({length: CLIENTS}, () => pullImage(url, agent)))
  expect(new Set(pulled)).toEqual(new Set([root.digest]))
  expect(await peakMemoryOf(running.child.pid!)).toBeLessThan(MAX_MEMORY)

  upstream.breakStalled()
  await running.line('stderr', /^converted /)
  const again = await Promise.all(Array.from({length: CLIENTS}, () => pullImage(url, agent)))
  const answer = await send(`${url}/v2/app/manifests/1`, 'GET', {headers: ACCEPT})
  expect(new Set(again)).toEqual(new Set([digestOf(answer.body)]))
  expect(digestOf(answer.body)).not.toBe(root.digest)
  expect(await peakMemoryOf(running.child.pid!)).toBeLessThan(MAX_MEMORY)

  running.child.kill('SIGTERM')
  const {stderr} = await running.finished
  expect(stderr.split('\n').filter(line => line !== '')).toEqual([
    expect.stringMatching(/^converting /),
    expect.stringMatching(/^converted /),
  ])
})

/** Pulls an image as clients do, with every byte hashed; resolves to its manifest's digest. */
async function pullImage(url: string, agent: Agent): Promise<string> {
  const head = await fetchHashed(`${url}/v2/app/manifests/1`, agent)
  const digest = String(head.headers['docker-content-digest'])
  const manifest = await fetchHashed(`${url}/v2/app/manifests/${digest}`, agent)
  expect(manifest.digest).toBe(digest)
  const {config, layers} = JSON.parse(manifest.text) as ImageManifest
  for (const blob of [config, ...layers]) {
    expect((await fetchHashed(`${url}/v2/app/blobs/${blob.digest}`, agent)).digest).toBe(blob.digest)
  }
  return digest
}

interface Hashed {
  readonly digest: string
  readonly headers: IncomingHttpHeaders
  /** Of small answers. */
  readonly text: string
}

function fetchHashed(url: string, agent: Agent): Promise<Hashed> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(url, {agent, headers: ACCEPT}, response => {
      const digester = createDigester()
      let text = ''
      response.on('data', (part: Buffer) => {
        digester.update(part)
        if (text.length < 65_536) text += part.toString()
      })
      response.on('error', reject)
      response.on('end', () => resolve({digest: digester.digest(), headers: response.headers, text}))
    })
    request.on('error', reject)
    request.end()
  })
}

/** The most memory that a process has had at once, bytes. */
async function peakMemoryOf(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  return Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1]) * 1024
}
