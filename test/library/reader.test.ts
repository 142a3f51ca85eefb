// The reader for everywhere, where it is meant to run: bundled as for a browser, in a context that has the web's globals
// and none of Node's, over HTTP.

import {createServer, type RequestListener, type Server} from 'node:http'
import type {AddressInfo} from 'node:net'
import {join} from 'node:path'
import {createContext, runInContext} from 'node:vm'
import {zstdDecompressSync} from 'node:zlib'
import {build} from 'esbuild'
import {afterEach, beforeAll, describe, expect, it} from 'vitest'
import {buildLayer} from '../../src/index.ts'
import {CodedError, codeOf} from '../../src/lib/errors/coded-error.ts'
import {externalTocCompressor} from '../../src/lib/estargz/compressor.ts'
import {createReader, openHttpBlob, openLayer} from '../../src/reader.ts'
import {convertTar} from '../support/layers.ts'
import {memoryBlob} from '../support/memory-content.ts'
import {archive, directory, member} from '../support/tar.ts'

type Reader = typeof import('../../src/reader.ts')

const noise = Buffer.from(Array.from({length: 300_000}, (_, index) => (index * index) >>> 5))
const TAR = archive(
  directory('d/'),
  member({name: 'd/text'}, 'hello from a layer\n'),
  member({name: 'large'}, noise),
  ...Array.from({length: 50}, (_, index) => member({name: `d/${index}`}, `file ${index}`)),
)

let server: Server | undefined
afterEach(() => new Promise<void>(done => (server ? server.close(() => done()) : done())))

/** Serves with `listener`; resolves to a URL below it. */
async function serve(listener: RequestListener): Promise<string> {
  server = createServer({keepAlive: false}, listener)
  await new Promise<void>(done => server!.listen(0, '127.0.0.1', done))
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/layer`
}

/** A web server with one file, as any web server is; `seen` gets the ranges that were asked for. */
function fileServer(bytes: Uint8Array, seen: string[] = []): RequestListener {
  return (request, response) => {
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? []
    if (request.method === 'HEAD') return void response.setHeader('content-length', bytes.length).end()
    if (first === undefined) return void response.end(bytes)
    seen.push(request.headers.range!)
    response.writeHead(206, {'content-range': `bytes ${first}-${last}/${bytes.length}`})
    response.end(bytes.subarray(Number(first), Number(last) + 1))
  }
}

describe('in a browser', () => {
  let code: string
  beforeAll(async () => {
    // For a browser esbuild refuses whatever imports something of Node's.
    const {outputFiles, metafile} = await build({
      entryPoints: [join(import.meta.dirname, '../../src/reader.ts')],
      bundle: true,
      write: false,
      platform: 'browser',
      format: 'iife',
      globalName: 'reader',
      metafile: true,
      minify: true,
    })
    const imports = Object.values(metafile.inputs).flatMap(input => input.imports)
    expect(imports.filter(({path, external}) => external || path.startsWith('node:'))).toEqual([])
    code = outputFiles[0]!.text
  })

  /** The bundle's exports, evaluated where there is nothing but the web's globals. */
  function inBrowser(globals: Record<string, unknown> = {}): Reader {
    const web = {fetch, crypto, TextDecoder, TextEncoder, URL, AbortController, AbortSignal, ...globals}
    const context = createContext(web)
    runInContext(code, context)
    expect(runInContext('typeof Buffer + typeof process + typeof require', context)).toBe(
      'undefinedundefinedundefined',
    )
    return (context as unknown as {reader: Reader}).reader
  }

  it('is small', () => expect(code.length).toBeLessThan(40_000))

  it.each([
    ['by default', {}],
    ['in small chunks', {chunkSize: 1000}],
    ['with streams of several chunks', {minChunkSize: 20_000, chunkSize: 5000}],
  ])('a layer %s is listed and read over HTTP, and only what is needed is fetched', async (_, options) => {
    const built = await convertTar(TAR, options)
    const seen: string[] = []
    const url = await serve(fileServer(built.bytes, seen))
    const reader = inBrowser()
    const blob = await reader.openHttpBlob(url)
    const layer = await reader.openLayer(blob, {where: url, tocDigest: built.tocDigest})
    expect(layer.files.size).toBe(53)
    // Footer and TOC.
    expect(seen).toHaveLength(2)
    expect(await contentsOf(reader, layer, 'd/text')).toEqual(Buffer.from('hello from a layer\n'))
    expect(seen).toHaveLength(3)
    expect(await contentsOf(reader, layer, 'large')).toEqual(noise)
    expect(await contentsOf(reader, layer, 'd/49')).toEqual(Buffer.from('file 49'))
  })

  it('a layer whose TOC is outside is read with it', async () => {
    const compressor = externalTocCompressor(6, {lossless: true})
    const built = await convertTar(TAR, {compressor, lossless: true})
    const url = await serve(fileServer(built.bytes))
    const reader = inBrowser()
    const externalToc = await reader.extractDetachedToc(built.detachedToc!, 'the TOC')
    const blob = await reader.openHttpBlob(url)
    const layer = await reader.openLayer(blob, {where: url, tocDigest: built.tocDigest, externalToc})
    expect(await contentsOf(reader, layer, 'large')).toEqual(noise)
    const damaged = built.detachedToc!.subarray(0, 100)
    expect(await reader.extractDetachedToc(damaged, 'it').then(() => 'read', reader.codeOf)).toBe('corrupt')
  })

  it('contents that are not those of the TOC are refused', async () => {
    const built = await convertTar(TAR)
    const {files} = await openLayer(memoryBlob(built.bytes), {where: 'the layer'})
    const {offset} = files.get('large')!.chunks[0]!
    built.bytes[offset + 1000]! ^= 1
    const url = await serve(fileServer(built.bytes))
    const reader = inBrowser()
    const layer = await reader.openLayer(await reader.openHttpBlob(url), {where: url})
    const reading = contentsOf(reader, layer, 'large')
    expect(await reading.then(() => 'read', reader.codeOf)).toBe('corrupt')
  })

  it('without WebCrypto nothing is believed', async () => {
    const built = await convertTar(TAR)
    const url = await serve(fileServer(built.bytes))
    const reader = inBrowser({crypto: undefined})
    const blob = await reader.openHttpBlob(url)
    expect(await reader.openLayer(blob, {where: url}).then(() => 'opened', reader.codeOf)).toBe('unsupported')
  })

  async function contentsOf(reader: Reader, layer: Parameters<Reader['readFile']>[0], path: string) {
    const {files} = layer as Awaited<ReturnType<Reader['openLayer']>>
    const parts: Uint8Array[] = []
    for await (const part of reader.readFile(layer, files.get(path)!)) parts.push(part)
    return Buffer.concat(parts)
  }
})

describe('a blob over HTTP', () => {
  const bytes = Buffer.from('0123456789')
  const failure = async (listener: RequestListener, size?: number) => {
    const url = await serve(listener)
    const blob = await openHttpBlob(`${url}?signature=secret`, size === undefined ? {} : {size})
    return blob.read(2, 3)
  }
  const refuse = async (listener: RequestListener, code: string, size?: number) => {
    const error = await failure(listener, size).then(
      () => undefined,
      cause => cause,
    )
    expect(error).toBeInstanceOf(CodedError)
    expect(codeOf(error)).toBe(code)
    expect(String(error)).not.toContain('secret')
  }

  it('reads ranges', async () => {
    const seen: string[] = []
    const blob = await openHttpBlob(await serve(fileServer(bytes, seen)))
    expect(blob.size).toBe(10)
    expect(Buffer.from(await blob.read(2, 3)).toString()).toBe('234')
    expect(Buffer.from(await blob.read(0, 0)).toString()).toBe('')
    expect(seen).toEqual(['bytes=2-4'])
    await expect(blob.read(8, 3)).rejects.toSatisfy(error => codeOf(error) === 'invalid-argument')
  })
  it('sends headers, and asks nothing whose answer it has', async () => {
    const methods: string[] = []
    const url = await serve((request, response) => {
      methods.push(`${request.method} ${request.headers.authorization}`)
      fileServer(bytes)(request, response)
    })
    const blob = await openHttpBlob(url, {size: 10, headers: {authorization: 'Bearer x'}})
    await blob.read(0, 1)
    expect(methods).toEqual(['GET Bearer x'])
  })
  it.each([
    [401, 'unauthenticated'],
    [403, 'permission-denied'],
    [404, 'not-found'],
    [429, 'unavailable'],
    [503, 'unavailable'],
    [418, 'failed-precondition'],
  ])('answers HTTP %d with %s', (status, code) =>
    refuse((_, response) => response.writeHead(status).end(), code),
  )
  it('needs ranges', () => refuse((_, response) => response.end(bytes), 'unsupported', 10))
  it('needs a size', () =>
    refuse((_, response) => {
      response.flushHeaders()
      response.end()
    }, 'unsupported'))
  it('does not take another range', () =>
    refuse(
      (_, response) => response.writeHead(206, {'content-range': 'bytes 3-5/10'}).end('345'),
      'corrupt',
      10,
    ))
  it('does not take less than it asked for', () =>
    refuse((_, response) => response.writeHead(206).end('2'), 'corrupt', 10))
  it('does not take more, nor read on for ever', () =>
    refuse(
      (_, response) => {
        response.writeHead(206)
        const more = () => {
          if (!response.destroyed) response.write('x'.repeat(65_536), () => setImmediate(more))
        }
        more()
      },
      'corrupt',
      10,
    ))
  it('notices a lost connection', () =>
    refuse(
      (_, response) => {
        response.writeHead(206, {'content-length': 3})
        response.write('2', () => response.destroy())
      },
      'unavailable',
      10,
    ))
  it('notices a server that is gone', async () => {
    const url = await serve(fileServer(bytes))
    await new Promise<void>(done => server!.close(() => done()))
    server = undefined
    await expect(openHttpBlob(url)).rejects.toSatisfy(error => codeOf(error) === 'unavailable')
  })
  it('can be told to stop', async () => {
    const abort = new AbortController()
    const url = await serve(() => abort.abort())
    const blob = await openHttpBlob(url, {size: 10})
    const reading = blob.read(0, 1, {signal: abort.signal})
    await expect(reading).rejects.toSatisfy(error => codeOf(error) === 'cancelled')
    server!.closeAllConnections()
  })
})

describe('zstd:chunked', () => {
  it('needs a decompressor from the caller', async () => {
    const {bytes, annotations} = await zstdLayer()
    const opening = openLayer(memoryBlob(bytes), {where: 'the layer', annotations})
    await expect(opening).rejects.toSatisfy(error => codeOf(error) === 'unsupported')
  })
  it('is read with one', async () => {
    const {bytes, annotations} = await zstdLayer()
    const reader = createReader({decompressZstd: frames => zstdDecompressSync(frames)})
    const layer = await reader.openLayer(memoryBlob(bytes), {where: 'the layer', annotations})
    const parts: Uint8Array[] = []
    for await (const part of reader.readFile(layer, layer.files.get('large')!)) parts.push(part)
    expect(Buffer.concat(parts)).toEqual(noise)
  })
  it('that is damaged is corrupt', async () => {
    const {bytes, annotations} = await zstdLayer()
    const reader = createReader({decompressZstd: frames => zstdDecompressSync(frames)})
    const layer = await reader.openLayer(memoryBlob(bytes), {where: 'the layer', annotations})
    const file = layer.files.get('large')!
    bytes.fill(0, file.chunks[0]!.offset, file.chunks[0]!.offset + 100)
    const reading = reader.readFile(layer, file).next()
    await expect(reading).rejects.toSatisfy(error => codeOf(error) === 'corrupt')
  })

  async function zstdLayer() {
    const parts: Uint8Array[] = []
    const write = (part: Uint8Array) => void parts.push(Uint8Array.from(part))
    const {descriptor} = await buildLayer(memoryBlob(TAR), {format: 'zstd:chunked', write})
    return {bytes: Buffer.concat(parts), annotations: descriptor.annotations}
  }
})
