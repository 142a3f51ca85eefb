// What the daemon tells over HTTP: metrics on a TCP address, and how the process is doing on a unix socket.

import {chmod} from 'node:fs/promises'
import {createServer, type IncomingMessage, type ServerResponse} from 'node:http'
import {Session} from 'node:inspector/promises'
import type {ListenOptions} from 'node:net'
import {setTimeout as sleep} from 'node:timers/promises'
import {CodedError, describeError} from '../../lib/errors/coded-error.ts'
import type {Metrics} from '../lazy-layers/metrics.ts'
import {makeWayForSocket} from './listen-socket.ts'
import type {ServiceState} from './service-state.ts'

type Answer = (request: IncomingMessage, response: ServerResponse) => Promise<void>

/** Longest CPU profile, seconds. */
const MAX_PROFILE_S = 300
const DEFAULT_PROFILE_S = 30

/**
 * Serves `/metrics` at `host:port` until disposed, and `/readyz`, as Kubernetes asks: 503 before the daemon serves and while it
 * stops. Throws `invalid-argument`, `failed-precondition`.
 */
export async function serveMetrics(
  address: string,
  metrics: Metrics,
  state: ServiceState,
): Promise<AsyncDisposable> {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]*)):(\d{1,5})$/.exec(address)
  const port = Number(match?.[3])
  if (!match || port > 65535) {
    throw new CodedError(
      'invalid-argument',
      `Cannot serve metrics at "${address}": expected "host:port", such as "127.0.0.1:8234"`,
    )
  }
  const host = match[1] ?? (match[2] || undefined)
  return serve({port, ...(host === undefined ? {} : {host})}, address, {
    '/metrics': async (_, response) => {
      const {text, contentType} = await metrics.read()
      response.setHeader('content-type', contentType).end(text)
    },
    '/readyz': async (_, response) => {
      const {isReady} = state
      response.writeHead(isReady ? 200 : 503).end(isReady ? 'ok\n' : 'not serving\n')
    },
  })
}

/** Serves `/debug/vars` and `/debug/pprof/` on a unix socket until disposed; profiles are in V8's formats. */
export async function serveDebug(socketPath: string): Promise<AsyncDisposable> {
  await makeWayForSocket(socketPath)
  const answers: Readonly<Record<string, Answer>> = {
    '/debug/vars': async (_, response) => {
      const vars = {
        cmdline: process.argv,
        memstats: process.memoryUsage(),
        resources: process.resourceUsage(),
      }
      response.setHeader('content-type', 'application/json').end(JSON.stringify(vars))
    },
    '/debug/pprof/profile': async (request, response) => {
      const asked = Number(
        new URL(request.url!, 'http://unix').searchParams.get('seconds') ?? DEFAULT_PROFILE_S,
      )
      const seconds = Math.min(Math.max(asked || DEFAULT_PROFILE_S, 1), MAX_PROFILE_S)
      const profile = await recordCpuProfile(seconds, response)
      response.setHeader('content-type', 'application/json').end(JSON.stringify(profile))
    },
    '/debug/pprof/heap': async (_, response) => {
      const {getHeapSnapshot} = await import('node:v8')
      response.setHeader('content-type', 'application/json')
      getHeapSnapshot().pipe(response)
    },
  }
  const served = await serve({path: socketPath}, socketPath, answers)
  // A heap holds credentials.
  await chmod(socketPath, 0o600)
  return served
}

/** A V8 `.cpuprofile`; ends early when the caller leaves. */
async function recordCpuProfile(seconds: number, response: ServerResponse): Promise<unknown> {
  const session = new Session()
  session.connect()
  const gone = new AbortController()
  response.once('close', () => gone.abort())
  try {
    await session.post('Profiler.enable')
    await session.post('Profiler.start')
    await sleep(seconds * 1000, undefined, {signal: gone.signal}).catch(() => {})
    return (await session.post('Profiler.stop')).profile
  } finally {
    session.disconnect()
  }
}

async function serve(
  listen: ListenOptions,
  address: string,
  answers: Readonly<Record<string, Answer>>,
): Promise<AsyncDisposable> {
  const server = createServer((request, response) => {
    const path = (request.url ?? '').split('?')[0]!
    const answer = Object.hasOwn(answers, path) ? answers[path] : undefined
    if (!answer || request.method !== 'GET') {
      response.writeHead(404).end(`${Object.keys(answers).join('\n')}\n`)
      return
    }
    answer(request, response).catch(error => {
      if (!response.headersSent) response.writeHead(500)
      response.end(`${describeError(error)}\n`)
    })
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', cause => {
      reject(
        new CodedError('failed-precondition', `Cannot listen on "${address}": ${cause.message}`, {cause}),
      )
    })
    server.listen(listen, resolve)
  })
  return {
    [Symbol.asyncDispose]: () =>
      new Promise<void>(resolve => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}
