// What a command works with, opened as its flags say: store, registries, archives, progress, and the signal to stop.

import {CodedError} from '../lib/errors/coded-error.ts'
import type {ProgressSink} from '../lib/io/progress.ts'
import type {IpfsNode} from '../lib/ipfs/ipfs-node.ts'
import type {ImageSource, ImageTarget, Store} from '../lib/oci/image-store.ts'
import type {Registry} from '../lib/registry/registry.ts'
import {interruptSignal} from '../lib/terminal/interrupts.ts'
import type {ImageLocation} from '../lib/transport/image-location.ts'
import type {TransportContext} from '../lib/transport/open-image.ts'
import {openProgressView} from './progress.ts'
import type {SessionFlags} from './session-flags.ts'
import {dataDirectory, memoryDirectory, openStore, USUAL_ADDRESS} from './stores.ts'

export interface Session extends AsyncDisposable {
  /** Aborted by SIGINT, SIGTERM, SIGHUP and `--timeout`. */
  readonly signal: AbortSignal
  /** The store of plain names; opened once, and closed with the session. */
  store(): Promise<Store>
  /** The IPFS node of this user; opened once, and closed with the session. */
  ipfs(): Promise<IpfsNode>
  /** The image that a person names; the caller disposes it. */
  source(location: string | ImageLocation): Promise<ImageSource>
  /** The place for an image that a person names; the caller disposes it. */
  target(location: string | ImageLocation): Promise<ImageTarget>
  /** The client for the registry of a reference, which is read or written. */
  registry(role: 'source' | 'target', reference: string): Promise<Registry>
  /** Says where else on its registry the blobs of a target may be: from there they need not travel. */
  mountFrom(references: readonly string[]): Promise<void>
  /** Runs `work` while its progress is shown. */
  watch<Result>(work: (onProgress: ProgressSink) => Promise<Result>): Promise<Result>
  /** A directory of the user's for what may be forgotten; undefined where there is no home. */
  readonly memoryDirectory: string | undefined
  /** A message for people, on stderr. */
  say(message: string): void
  /** Milliseconds since the program started, where a person watches what it does; undefined elsewhere. */
  elapsedMs(): number | undefined
}

/** Opens a session; nothing is touched before it is asked for. */
export async function openSession(flags: SessionFlags, userAgent: string): Promise<Session> {
  const signal = signalFor(flags.timeout)
  const mode = flags.quiet ? 'none' : (flags.progress ?? 'auto')
  const say = (message: string) => void process.stderr.write(`${message}\n`)
  const opened: AsyncDisposable[] = []

  const talksMuch = flags.verbose || flags.debug
  const open = async (kind: SessionFlags['store']) => {
    const onFallback = (reason: string) => {
      // Whoever names a socket means it.
      if (flags.address !== USUAL_ADDRESS) say(`warning: using the local store, because ${reason}`)
      else if (talksMuch) say(`containerd is not used, because ${reason}`)
    }
    const choice = {
      onFallback,
      ...flags,
      store: kind,
      dataDirectory: () => dataDirectory(flags['data-dir'], process.env),
      connectTimeoutMs: flags['connect-timeout'],
    }
    const found = await openStore(choice, signal)
    opened.push(found)
    if (talksMuch) say(`store: ${found.kind} (${found.name})`)
    return found
  }
  const store = once(() => open(flags.store))
  const containerdStore = once(async () => {
    if (flags.store === 'local') return open('containerd')
    const found = await store()
    return found.kind === 'containerd' ? found : open('containerd')
  })
  const registries = once(async () => {
    const {createRegistries} = await import('./registries.ts')
    const registries = createRegistries({flags, userAgent, signal, say})
    opened.push(registries)
    return registries
  })
  const ipfs = once(async () => {
    const {IpfsNode} = await import('../lib/ipfs/ipfs-node.ts')
    const {findIpfsApi} = await import('../lib/ipfs/api-address.ts')
    const node = new IpfsNode({findApi: () => findIpfsApi(process.env), userAgent})
    opened.push(node)
    return node
  })
  const context: TransportContext = {
    signal,
    store,
    containerdStore,
    ipfs,
    registry: async (role, reference) => (await registries()).open(role, reference),
    mountFrom: [],
  }

  return {
    signal,
    store,
    ipfs,
    registry: context.registry,
    say,
    memoryDirectory: memoryDirectory(flags['data-dir'], process.env),
    async source(location) {
      const {openImageSource} = await import('../lib/transport/open-image.ts')
      return openImageSource(await locate(location), context)
    },
    async target(location) {
      const {openImageTarget} = await import('../lib/transport/open-image.ts')
      return openImageTarget(await locate(location), context)
    },
    async mountFrom(references) {
      context.mountFrom.push(...references)
    },
    elapsedMs: () => (process.stderr.isTTY === true && mode !== 'none' ? performance.now() : undefined),
    async watch(work) {
      // A terminal without a size, as some CI systems have, cannot be drawn on.
      const terminal = process.stderr.isTTY === true && process.stderr.columns > 0
      await using view = await openProgressView({mode, terminal, print: say})
      return await work(view.sink)
    },
    async [Symbol.asyncDispose]() {
      for (const resource of opened.reverse()) await resource[Symbol.asyncDispose]()
    },
  }
}

function signalFor(timeoutMs: number): AbortSignal {
  if (timeoutMs === 0) return interruptSignal
  const timeout = new AbortController()
  const reason = new CodedError('unavailable', `Cannot finish within ${timeoutMs} ms (--timeout)`)
  setTimeout(() => timeout.abort(reason), timeoutMs).unref()
  return AbortSignal.any([interruptSignal, timeout.signal])
}

async function locate(location: string | ImageLocation): Promise<ImageLocation> {
  if (typeof location !== 'string') return location
  const {parseImageLocation} = await import('../lib/transport/image-location.ts')
  return parseImageLocation(location)
}

/** `open`, whose first call counts. */
function once<Value>(open: () => Promise<Value>): () => Promise<Value> {
  let value: Promise<Value> | undefined
  return () => (value ??= open())
}
