// A registry over a store in a temporary directory, and requests to it.

import {request as httpRequest} from 'node:http'
import {onTestFinished} from 'vitest'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import type {Store} from '../../src/lib/oci/image-store.ts'
import type {RequestLogEntry} from '../../src/lib/registry-server/answer-request.ts'
import {
  type RegistryOptions,
  type RunningRegistry,
  serveRegistry,
} from '../../src/lib/registry-server/serve-registry.ts'
import {temporaryDirectory} from '../support/temporary.ts'

export interface TestRegistry extends RunningRegistry {
  readonly store: Store
  readonly log: readonly RequestLogEntry[]
  send(method: string, path: string, options?: SendOptions): Promise<Answer>
}

export interface SendOptions {
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Uint8Array
}

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: Buffer
  json(): {readonly errors?: readonly {readonly code: string}[]} & Record<string, unknown>
}

/** Starts a registry that ends with the running test. */
export async function startRegistry(options: RegistryOptions = {}): Promise<TestRegistry> {
  const store = await openLocalStore(await temporaryDirectory())
  const log: RequestLogEntry[] = []
  const registry = await serveRegistry(store, {...options, onRequest: entry => void log.push(entry)})
  onTestFinished(async () => {
    await registry[Symbol.asyncDispose]()
    await store[Symbol.asyncDispose]()
  })
  return {...registry, store, log, send: (method, path, more = {}) => send(registry.url + path, method, more)}
}

/** One request on a connection of its own. */
export function send(url: string, method: string, {headers = {}, body}: SendOptions): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(url, {method, headers, agent: false}, response => {
      const parts: Buffer[] = []
      response.on('data', (part: Buffer) => parts.push(part))
      response.on('error', reject)
      response.on('end', () => {
        const bytes = Buffer.concat(parts)
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: bytes,
          json: () => JSON.parse(bytes.toString()),
        })
      })
    })
    request.on('error', reject)
    request.end(body)
  })
}
