// A node of IPFS for tests: Kubo's three calls on the loopback interface, with the CIDs that Kubo gives, over blocks in
// memory. It lies, stalls and talks rubbish on request.

import {once} from 'node:events'
import {mkdtemp, rm, writeFile} from 'node:fs/promises'
import {createServer, type IncomingMessage, type ServerResponse} from 'node:http'
import type {AddressInfo} from 'node:net'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {MemoryBlockstore} from 'blockstore-core'
import {exporter} from 'ipfs-unixfs-exporter'
import {importer} from 'ipfs-unixfs-importer'
import {fixedSize} from 'ipfs-unixfs-importer/chunker'
import {balanced} from 'ipfs-unixfs-importer/layout'

/** What goes wrong with answers. */
export type IpfsFault =
  /** Content has one wrong byte. */
  | {readonly kind: 'lie'}
  /** Content ends this many bytes early. */
  | {readonly kind: 'short'; readonly bytes: number}
  | {readonly kind: 'status'; readonly status: number; readonly body: string}
  /** An answer of status 200 that no node gives. */
  | {readonly kind: 'rubbish'}
  /** Nothing comes, and the connection stays. */
  | {readonly kind: 'stall'}

export interface IpfsRequest {
  /** `add`, `cat` or `files/stat`. */
  readonly call: string
  readonly query: Readonly<Record<string, string>>
}

export interface TestIpfsNode extends AsyncDisposable {
  /** Its repository, for IPFS_PATH; the address is in its file `api`. */
  readonly repository: string
  readonly requests: readonly IpfsRequest[]
  /** CIDs that were added with `pin=true`. */
  readonly pinned: ReadonlySet<string>
  /** Adds a file as if by the API; resolves to its CID. `rawLeaves` as Kubo has it with `cid-version=1`. */
  add(bytes: Uint8Array, options?: {readonly rawLeaves?: boolean}): Promise<string>
  /** The bytes of a CID. */
  read(cid: string): Promise<Buffer>
  /** What happens from now on to requests for CIDs that `about` takes, and to those without one. */
  fail(fault: IpfsFault | undefined, about?: (cid: string) => boolean): void
  /** Writes its address into another node's repository, as one does that starts there anew. */
  moveTo(repository: string): Promise<void>
  /** Ends it, and forgets all that is in it. */
  stop(): Promise<void>
}

/** Kubo's defaults: blocks of 256 KiB, 174 links to a node. */
const CHUNKS = fixedSize({chunkSize: 262_144})
const LAYOUT = balanced({maxChildrenPerNode: 174})

export async function startIpfsNode(): Promise<TestIpfsNode> {
  const blocks = new MemoryBlockstore()
  const requests: IpfsRequest[] = []
  const pinned = new Set<string>()
  let failing: {readonly fault: IpfsFault; readonly about: (cid: string) => boolean} | undefined

  async function add(bytes: Uint8Array, {rawLeaves = true} = {}): Promise<string> {
    const options = {
      cidVersion: 1 as const,
      rawLeaves,
      reduceSingleLeafToSelf: true,
      chunker: CHUNKS,
      layout: LAYOUT,
    }
    for await (const {cid} of importer([{content: bytes}], blocks, options)) return cid.toString()
    throw new Error('Nothing was imported')
  }

  async function read(cid: string, range: {offset?: number; length?: number} = {}): Promise<Buffer> {
    const entry = await exporter(cid, blocks)
    if (entry.type !== 'file' && entry.type !== 'raw') throw new Error(`${cid} is no file`)
    const parts: Uint8Array[] = []
    for await (const part of entry.content(range)) parts.push(part)
    return Buffer.concat(parts)
  }

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://node')
    const call = url.pathname.replace(/^\/api\/v0\//, '')
    const query = Object.fromEntries(url.searchParams)
    requests.push({call, query})
    if (request.method !== 'POST') return fail(response, 405, '405 - Method Not Allowed')
    const cid = query.arg?.replace(/^\/ipfs\//, '') ?? ''
    const fault = failing?.about(cid) ? failing.fault : undefined
    if (fault?.kind === 'stall') return
    if (fault?.kind === 'status') return fail(response, fault.status, fault.body)
    if (fault?.kind === 'rubbish') return void response.end('<html>Welcome to nginx</html>')
    switch (call) {
      case 'add': {
        const bytes = await fileIn(request)
        const added = await add(bytes)
        if (query.pin === 'true') pinned.add(added)
        return void response.end(
          `${JSON.stringify({Name: 'file', Hash: added, Size: String(bytes.length)})}\n`,
        )
      }
      case 'files/stat': {
        const {size} = await exporter(cid, blocks)
        return void response.end(JSON.stringify({Hash: cid, Size: Number(size), Type: 'file', Blocks: 0}))
      }
      case 'cat': {
        const {offset, length} = query
        const range = {
          ...(offset ? {offset: Number(offset)} : {}),
          ...(length ? {length: Number(length)} : {}),
        }
        const bytes = Buffer.from(await read(cid, range))
        if (fault?.kind === 'lie') bytes[bytes.length >> 1]! ^= 1
        return void response.end(fault?.kind === 'short' ? bytes.subarray(0, -fault.bytes) : bytes)
      }
      default:
        return fail(response, 404, '404 page not found')
    }
  }

  const server = createServer((request, response) => {
    answer(request, response).catch(error =>
      fail(response, 500, JSON.stringify({Message: String(error.message), Code: 0, Type: 'error'})),
    )
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const repository = await mkdtemp(join(tmpdir(), 'ctr-remote-ipfs-node-'))
  const {port} = server.address() as AddressInfo
  const moveTo = (directory: string) => writeFile(join(directory, 'api'), `/ip4/127.0.0.1/tcp/${port}\n`)
  await moveTo(repository)
  const stop = async () => {
    server.closeAllConnections()
    await new Promise<void>(done => void server.close(() => done()))
  }
  return {
    repository,
    requests,
    pinned,
    add,
    read,
    fail(fault, about = () => true) {
      failing = fault && {fault, about}
    },
    moveTo,
    stop,
    async [Symbol.asyncDispose]() {
      await stop()
      await rm(repository, {recursive: true, force: true})
    },
  }
}

function fail(response: ServerResponse, status: number, body: string): void {
  response.writeHead(status).end(body)
}

/** The one file of a multipart body. */
async function fileIn(request: IncomingMessage): Promise<Uint8Array> {
  const parts: Buffer[] = []
  for await (const part of request) parts.push(part)
  const form = await new Response(Buffer.concat(parts), {
    headers: {'content-type': request.headers['content-type'] ?? ''},
  }).formData()
  const file = form.get('file')
  if (file === null || typeof file === 'string') throw new Error('There is no file in the form')
  return file.bytes()
}
