// What a command works with, opened as its flags say: store, registries, archives, progress, and the signal to stop.

import {CodedError} from '../lib/errors/coded-error.ts'
import type {ProgressSink} from '../lib/io/progress.ts'
import type {ImageSource, ImageTarget, Store} from '../lib/oci/image-store.ts'
import type {ImageLocation} from '../lib/transport/image-location.ts'
import {interruptSignal} from './interrupts.ts'
import {openProgressView} from './progress.ts'
import type {RegistryFlags} from './registry.ts'
import {dataDirectory, memoryDirectory, openStore, USUAL_ADDRESS} from './stores.ts'
import type {Transports} from './transports.ts'

/** Parsed flags that a session looks at; commands without a group of flags leave it out. */
export interface SessionFlags extends RegistryFlags {
  readonly store: 'auto' | 'containerd' | 'local'
  readonly 'data-dir'?: string | undefined
  readonly address: string
  readonly namespace: string
  readonly timeout: number
  readonly 'connect-timeout': number
  readonly verbose: boolean
  readonly debug: boolean
  readonly progress?: 'auto' | 'plain' | 'none'
  readonly quiet?: boolean
}

export interface Session extends AsyncDisposable {
  /** Aborted by SIGINT, SIGTERM, SIGHUP and `--timeout`. */
  readonly signal: AbortSignal
  /** The store of plain names; opened once, and closed with the session. */
  store(): Promise<Store>
  /** The image that a person names; the caller disposes it. */
  source(location: string | ImageLocation): Promise<ImageSource>
  /** The place for an image that a person names; the caller disposes it. */
  target(location: string | ImageLocation): Promise<ImageTarget>
  /** Says where else on its registry the blobs of a target may be: from there they need not travel. */
  mountFrom(references: readonly string[]): Promise<void>
  /** Runs `work` while its progress is shown. */
  watch<Result>(work: (onProgress: ProgressSink) => Promise<Result>): Promise<Result>
  /** A directory of the user's for what may be forgotten; undefined where there is no home. */
  readonly memoryDirectory: string | undefined
  /** A message for people, on stderr. */
  say(message: string): void
}

/** Opens a session; nothing is touched before it is asked for. */
export async function openSession(flags: SessionFlags, userAgent: string): Promise<Session> {
  const signal = signalFor(flags.timeout)
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
  const context = once(async (): Promise<Transports> => {
    const {createTransports} = await import('./transports.ts')
    const transports = createTransports({flags, userAgent, signal, store, containerdStore, say})
    opened.push(transports)
    return transports
  })

  return {
    signal,
    store,
    say,
    memoryDirectory: memoryDirectory(flags['data-dir'], process.env),
    async source(location) {
      const {openImageSource} = await import('../lib/transport/open-image.ts')
      return openImageSource(await locate(location), await context())
    },
    async target(location) {
      const {openImageTarget} = await import('../lib/transport/open-image.ts')
      return openImageTarget(await locate(location), await context())
    },
    async mountFrom(references) {
      const {mountFrom} = await context()
      mountFrom.push(...references)
    },
    async watch(work) {
      const mode = flags.quiet ? 'none' : (flags.progress ?? 'auto')
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
