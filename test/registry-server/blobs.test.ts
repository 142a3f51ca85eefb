import {randomBytes} from 'node:crypto'
import {rm, writeFile} from 'node:fs/promises'
import {request as httpRequest} from 'node:http'
import {join} from 'node:path'
import {describe, expect, it, vi} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {withLock} from '../../src/lib/layout/directory-lock.ts'
import {layoutPaths} from '../../src/lib/layout/layout-paths.ts'
import {hexOf} from '../../src/lib/oci/digest.ts'
import {PATIENTLY} from '../support/patience.ts'
import {readBlob, writeBlob} from '../support/sample-image.ts'
import {startRegistry, type TestRegistry} from './support.ts'

const BYTES = Buffer.from('0123456789abcdefghij')
const DIGEST = digestOf(BYTES)
const PATH = `/v2/app/blobs/${DIGEST}`

async function startWithBlob() {
  const registry = await startRegistry()
  await writeBlob(registry.store.content, BYTES)
  return registry
}

describe('GET of a blob', () => {
  it('gives it with its digest', async () => {
    const registry = await startWithBlob()
    const answer = await registry.send('GET', PATH)
    expect(answer).toMatchObject({status: 200, body: BYTES})
    expect(answer.headers).toMatchObject({
      'content-length': '20',
      'docker-content-digest': DIGEST,
      etag: `"${DIGEST}"`,
      'accept-ranges': 'bytes',
    })
    const head = await registry.send('HEAD', PATH)
    expect(head).toMatchObject({status: 200, headers: {'content-length': '20'}})
    expect(head.body).toHaveLength(0)
  })

  const ranges = (header: string, status: number, text: string | undefined, contentRange?: string) =>
    it(`with Range "${header}" gives ${text ?? 'nothing'}`, async () => {
      const registry = await startWithBlob()
      const answer = await registry.send('GET', PATH, {headers: {range: header}})
      expect(answer.status).toBe(status)
      if (text !== undefined) expect(answer.body.toString()).toBe(text)
      expect(answer.headers['content-range']).toBe(contentRange)
    })

  ranges('bytes=0-3', 206, '0123', 'bytes 0-3/20')
  ranges('bytes=19-', 206, 'j', 'bytes 19-19/20')
  ranges('bytes=15-100', 206, 'fghij', 'bytes 15-19/20')
  ranges('bytes=-3', 206, 'hij', 'bytes 17-19/20')
  ranges('bytes=-300', 206, BYTES.toString(), 'bytes 0-19/20')
  ranges('bytes=20-', 416, undefined, 'bytes */20')
  ranges('bytes=-0', 416, undefined, 'bytes */20')
  ranges('bytes=5-2', 200, BYTES.toString())
  ranges('bytes=a-b', 200, BYTES.toString())
  ranges('lines=1-2', 200, BYTES.toString())
  ranges('bytes=', 200, BYTES.toString())
  ranges(`bytes=${Array(20).fill('0-19').join(',')}`, 200, BYTES.toString())
  ranges(`bytes=${Array(1001).fill('0-0').join(',')}`, 200, BYTES.toString())

  it('gives several ranges as parts', async () => {
    const registry = await startWithBlob()
    const answer = await registry.send('GET', PATH, {headers: {range: 'bytes=0-1, 10-12,50-60'}})
    expect(answer.status).toBe(206)
    expect(Number(answer.headers['content-length'])).toBe(answer.body.length)
    const boundary = /boundary=(.*)/.exec(String(answer.headers['content-type']))![1]!
    const parts = answer.body.toString().split(`--${boundary}`)
    expect(parts.slice(1, 3).map(part => part.split('\r\n\r\n')[1]!.trimEnd())).toEqual(['01', 'abc'])
    expect(parts[1]).toContain('Content-Range: bytes 0-1/20')
    expect(parts[3]).toBe('--\r\n')
  })

  it('waits for no writer of the store once the blob is known', async () => {
    const registry = await startWithBlob()
    const range = {headers: {range: 'bytes=0-3'}}
    // A push: from now on, what the store is asked for is leased, under its lock.
    await registry.send('POST', `/v2/app/blobs/uploads/?mount=${DIGEST}&from=other`)
    await registry.send('GET', PATH, range)
    const {lock} = layoutPaths(registry.store.name)
    const answer = await withLock(lock, {}, () => registry.send('GET', PATH, range))
    expect(answer).toMatchObject({status: 206, body: BYTES.subarray(0, 4)})
  })

  it('is not found any more when it has been removed after a read', async () => {
    const registry = await startWithBlob()
    await registry.send('GET', PATH)
    await rm(join(registry.store.name, 'blobs/sha256', hexOf(DIGEST)))
    expect(await registry.send('GET', PATH)).toMatchObject({status: 404})
    await writeBlob(registry.store.content, BYTES)
    expect(await registry.send('GET', PATH)).toMatchObject({status: 200, body: BYTES})
  })

  it('answers 304 to who has it, and the whole to a stale If-Range', async () => {
    const registry = await startWithBlob()
    const headers = {'if-none-match': `"${DIGEST}"`}
    expect(await registry.send('GET', PATH, {headers})).toMatchObject({status: 304})
    const stale = {range: 'bytes=0-1', 'if-range': '"other"'}
    expect(await registry.send('GET', PATH, {headers: stale})).toMatchObject({status: 200})
  })

  it('is BLOB_UNKNOWN or DIGEST_INVALID when it cannot be', async () => {
    const registry = await startRegistry()
    const check = async (digest: string, status: number, code: string) => {
      const answer = await registry.send('GET', `/v2/app/blobs/${digest}`)
      expect(answer.status).toBe(status)
      expect(answer.json().errors?.[0]?.code).toBe(code)
    }
    await check(DIGEST, 404, 'BLOB_UNKNOWN')
    await check('sha256:12', 400, 'DIGEST_INVALID')
    await check(`sha512:${'a'.repeat(128)}`, 400, 'DIGEST_INVALID')
    await check('..%2f..%2fetc%2fpasswd', 404, 'NAME_UNKNOWN')
  })

  it('breaks the connection rather than end well with damaged bytes', async () => {
    const registry = await startRegistry()
    const bytes = randomBytes(2 * 1024 * 1024)
    const blob = await writeBlob(registry.store.content, bytes)
    bytes[0] = bytes[0]! ^ 1
    // The first chunks were sent before the last could show the damage: only a broken body tells.
    await writeFile(join(registry.store.name, 'blobs/sha256', hexOf(blob.digest)), bytes)
    await expect(registry.send('GET', `/v2/app/blobs/${blob.digest}`)).rejects.toThrow()
    await vi.waitUntil(() => registry.log.length === 1, PATIENTLY)
    expect(registry.log[0]).toMatchObject({status: 499, error: expect.stringContaining('digest')})
  })
})

describe('an upload', () => {
  const start = async (registry: TestRegistry) => {
    const answer = await registry.send('POST', '/v2/app/blobs/uploads/')
    expect(answer.status).toBe(202)
    return String(answer.headers.location)
  }
  const stored = (registry: TestRegistry) =>
    readBlob(registry.store.content, {mediaType: '', digest: DIGEST, size: BYTES.length})

  it('in one request', async () => {
    const registry = await startRegistry()
    const answer = await registry.send('POST', `/v2/app/blobs/uploads/?digest=${DIGEST}`, {body: BYTES})
    expect(answer).toMatchObject({status: 201, headers: {location: `/v2/app/blobs/${DIGEST}`}})
    expect(await stored(registry)).toEqual(BYTES)
  })

  it('in POST and PUT', async () => {
    const registry = await startRegistry()
    const location = await start(registry)
    const answer = await registry.send('PUT', `${location}?digest=${DIGEST}`, {body: BYTES})
    expect(answer.status).toBe(201)
    expect(await stored(registry)).toEqual(BYTES)
  })

  it('in chunks, each where the last ended', async () => {
    const registry = await startRegistry()
    const location = await start(registry)
    const patch = (from: number, to: number) =>
      registry.send('PATCH', location, {
        headers: {'content-range': `${from}-${to - 1}`},
        body: BYTES.subarray(from, to),
      })
    expect(await patch(0, 5)).toMatchObject({status: 202, headers: {range: '0-4'}})
    // A chunk again, and one too far, are told where the upload is.
    expect(await patch(0, 5)).toMatchObject({status: 416, headers: {range: '0-4'}})
    expect(await patch(10, 20)).toMatchObject({status: 416})
    expect(await registry.send('GET', location)).toMatchObject({status: 204, headers: {range: '0-4'}})
    expect(await patch(5, 15)).toMatchObject({status: 202, headers: {range: '0-14'}})
    const last = await registry.send('PUT', `${location}?digest=${DIGEST}`, {
      headers: {'content-range': '15-19'},
      body: BYTES.subarray(15),
    })
    expect(last.status).toBe(201)
    expect(await stored(registry)).toEqual(BYTES)
    expect((await registry.send('GET', location)).json().errors?.[0]?.code).toBe('BLOB_UPLOAD_UNKNOWN')
  })

  it('of other bytes than its digest is DIGEST_INVALID, and leaves nothing', async () => {
    const registry = await startRegistry()
    const location = await start(registry)
    const answer = await registry.send('PUT', `${location}?digest=${DIGEST}`, {body: 'other'})
    expect(answer.status).toBe(400)
    expect(answer.json().errors?.[0]?.code).toBe('DIGEST_INVALID')
    expect(await registry.send('GET', PATH)).toMatchObject({status: 404})
  })

  it('without a digest is DIGEST_INVALID, and can still be finished', async () => {
    const registry = await startRegistry()
    const location = await start(registry)
    expect(await registry.send('PUT', location)).toMatchObject({status: 400})
    const answer = await registry.send('PUT', `${location}?digest=${DIGEST}`, {body: BYTES})
    expect(answer.status).toBe(201)
  })

  it('can be given up', async () => {
    const registry = await startRegistry()
    const location = await start(registry)
    expect(await registry.send('DELETE', location)).toMatchObject({status: 204})
    expect(await registry.send('PATCH', location, {body: 'x'})).toMatchObject({status: 404})
  })

  it('belongs to its repository', async () => {
    const registry = await startRegistry()
    const location = (await start(registry)).replace('/v2/app/', '/v2/other/')
    expect(await registry.send('PATCH', location, {body: 'x'})).toMatchObject({status: 404})
  })

  it('goes on where a broken connection left it', async () => {
    const registry = await startRegistry()
    const location = await start(registry)
    const request = httpRequest(registry.url + location, {
      method: 'PATCH',
      headers: {'content-length': BYTES.length},
    })
    request.on('error', () => {})
    const closed = new Promise(resolve => request.on('close', resolve))
    request.write(BYTES.subarray(0, 8))
    await vi.waitUntil(async () => (await registry.send('GET', location)).headers.range === '0-7', PATIENTLY)
    request.destroy()
    await closed
    await vi.waitUntil(() => registry.log.some(entry => entry.method === 'PATCH'), PATIENTLY)
    const rest = await registry.send('PATCH', location, {
      headers: {'content-range': '8-19'},
      body: BYTES.subarray(8),
    })
    expect(rest).toMatchObject({status: 202})
    expect(await registry.send('PUT', `${location}?digest=${DIGEST}`)).toMatchObject({status: 201})
    expect(await stored(registry)).toEqual(BYTES)
  })

  it('is not needed for a blob of another repository', async () => {
    const registry = await startWithBlob()
    const mount = (digest: string) => registry.send('POST', `/v2/new/blobs/uploads/?mount=${digest}&from=app`)
    expect(await mount(DIGEST)).toMatchObject({status: 201, headers: {'docker-content-digest': DIGEST}})
    expect(await mount(digestOf('unknown'))).toMatchObject({status: 202})
  })

  it('stays through a garbage collection until its manifest comes', async () => {
    const registry = await startRegistry()
    await registry.send('POST', `/v2/app/blobs/uploads/?digest=${DIGEST}`, {body: BYTES})
    expect(await registry.store.collectGarbage()).toBe(0)
  })

  it('in one request that its client gives up leaves nothing open, since nobody could go on with it', async () => {
    const registry = await startRegistry()
    const url = `${registry.url}/v2/app/blobs/uploads/?digest=${DIGEST}`
    const giveUp = async () => {
      const request = httpRequest(url, {method: 'POST', agent: false, headers: {'content-length': 20}})
      request.on('error', () => undefined)
      request.write(BYTES.subarray(0, 10))
      await vi.waitUntil(() => request.socket && request.writableLength === 0, PATIENTLY)
      request.destroy()
    }
    for (let count = 0; count < 256; count += 32) await Promise.all(Array.from({length: 32}, giveUp))
    await vi.waitUntil(() => registry.log.length === 256, PATIENTLY)
    expect((await registry.send('POST', '/v2/app/blobs/uploads/')).status).toBe(202)
  })

  it('is one of at most 256', async () => {
    const registry = await startRegistry()
    for (let count = 0; count < 256; count++) await start(registry)
    const answer = await registry.send('POST', '/v2/app/blobs/uploads/')
    expect(answer.status).toBe(429)
  })
})
