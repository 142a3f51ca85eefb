// What is told of layers at their mountpoints, and of those that could not be mounted.

import {describeError} from '../errors/coded-error.ts'
import type {LayerRequest} from './layer-request.ts'
import type {LazyLayerStatus} from './lazy-layer-status.ts'
import type {MountKind} from './ports.ts'
import type {LayerUse} from './shared-layers.ts'

/** A layer at its mountpoint. */
export interface Mounted {
  readonly use: LayerUse
  kind: MountKind
  /** What happened to an earlier mount there, which running containers may still have. */
  problem?: string
}

export function statusOf(mountpoint: string, {use, kind, problem}: Mounted): LazyLayerStatus {
  const {format, device, prefetchSize} = use.layer
  const {reference, digest, tocDigest} = use.request
  const {keptBytes, totalBytes, presentBytes, requests, errors, lastError, hits} = device.counters()
  return {
    mountpoint,
    reference,
    digest,
    ...(tocDigest ? {tocDigest} : {}),
    lazy: true,
    format,
    backend: kind,
    size: totalBytes,
    fetched: keptBytes,
    deviceSize: device.size,
    present: presentBytes,
    prefetchSize,
    requests,
    errors: errors + (problem === undefined ? 0 : 1),
    hits,
    prefetchedUnread: device.prefetchedUnread(),
    ...lastErrorOf(problem ?? lastError),
  }
}

function lastErrorOf(lastError: string | undefined): Pick<LazyLayerStatus, 'lastError'> {
  return lastError === undefined ? {} : {lastError}
}

/** Layers that are remembered; the oldest go first. */
const MAX_REFUSALS = 1000
const NOTHING = {size: 0, fetched: 0, deviceSize: 0, present: 0, prefetchSize: 0, requests: 0, errors: 0}

/** Layers that could not be mounted lazily, and why. */
export class Refusals {
  readonly #refusals = new Map<string, LazyLayerStatus>()

  add(mountpoint: string, {reference, digest}: LayerRequest, error: unknown): void {
    const reason = describeError(error)
    this.#refusals.delete(digest)
    this.#refusals.set(digest, {...NOTHING, mountpoint, reference, digest, lazy: false, reason})
    const [oldest] = this.#refusals.keys()
    if (this.#refusals.size > MAX_REFUSALS && oldest !== undefined) this.#refusals.delete(oldest)
  }

  delete({digest}: LayerRequest): void {
    this.#refusals.delete(digest)
  }

  list(): LazyLayerStatus[] {
    return [...this.#refusals.values()]
  }
}
