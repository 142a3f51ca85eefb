// Layers that were asked for and could not be served, and why.

import type {LazyLayerStatus} from '../layer/lazy-layer-status.ts'
import {encodeReferenceName} from './reference-name.ts'
import type {StoredLayerName} from './stored-layer.ts'

export interface Refusals {
  add(name: StoredLayerName, reason: string): void
  delete(name: StoredLayerName): void
  list(): readonly LazyLayerStatus[]
}

/** As many are remembered; the oldest go first. */
const MAX_REFUSALS = 1000

const NOTHING = {size: 0, fetched: 0, deviceSize: 0, present: 0, prefetchSize: 0, requests: 0, errors: 0}

export function createRefusals(): Refusals {
  const refusals = new Map<string, LazyLayerStatus>()
  const keyOf = ({reference, name}: StoredLayerName) => `${encodeReferenceName(reference)}/${name}`
  return {
    add: (name, reason) => {
      const mountpoint = keyOf(name)
      refusals.delete(mountpoint)
      refusals.set(mountpoint, {
        ...NOTHING,
        mountpoint,
        reference: name.reference,
        digest: name.name,
        lazy: false,
        reason,
      })
      const [oldest] = refusals.keys()
      if (refusals.size > MAX_REFUSALS && oldest !== undefined) refusals.delete(oldest)
    },
    delete: name => void refusals.delete(keyOf(name)),
    list: () => [...refusals.values()],
  }
}
