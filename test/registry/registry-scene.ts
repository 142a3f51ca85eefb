// Shared by the tests of registries: options that make retries fast, and reading a blob to its end.

import {onTestFinished} from 'vitest'
import type {OpenBlob} from '../../src/lib/oci/content-store.ts'
import {openRegistry, type Registry, type RegistryOptions} from '../../src/lib/registry/registry.ts'
import {
  type FaultyRegistry,
  type FaultyRegistryOptions,
  startFaultyRegistry,
} from '../support/faulty-registry.ts'

export const FAST_RETRY = {attempts: 4, minDelayMs: 1, maxDelayMs: 2, maxRetryAfterMs: 50}

/** A faulty registry for the running test. */
export async function startRegistry(options: FaultyRegistryOptions = {}): Promise<FaultyRegistry> {
  const server = await startFaultyRegistry(options)
  onTestFinished(() => server[Symbol.asyncDispose]())
  return server
}

/** A client for the running test. */
export function openClient(options: RegistryOptions = {}): Registry {
  const client = openRegistry({retry: FAST_RETRY, ...options})
  onTestFinished(() => client[Symbol.asyncDispose]())
  return client
}

export async function readAll(blob: OpenBlob, signal?: AbortSignal): Promise<Buffer> {
  const parts: Uint8Array[] = []
  for await (const part of blob.stream({signal})) parts.push(part)
  return Buffer.concat(parts)
}

/** Bytes that differ from place to place, the same for every run. */
export function sampleBytes(size: number): Buffer {
  const bytes = Buffer.alloc(size)
  for (let index = 0, state = 1; index < size; index++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    bytes[index] = state >>> 16
  }
  return bytes
}
