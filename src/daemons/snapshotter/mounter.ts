// What mounts layers, made from the configuration.

import {CodedError} from '../../lib/errors/coded-error.ts'
import type {LazyLayerMounter} from '../../lib/snapshot/lazy-layer-status.ts'
import type {SnapshotterConfig} from './config.ts'
import type {DaemonFlags} from './flags.ts'
import type {Log} from './log.ts'

export interface MounterOptions {
  readonly config: SnapshotterConfig
  readonly flags: DaemonFlags
  readonly log: Log
  readonly env: Readonly<Record<string, string | undefined>>
}

/** A mounter that leaves every layer to be fetched in full. */
export async function createMounter(_options: MounterOptions): Promise<LazyLayerMounter> {
  const refuse = async () => {
    throw new CodedError('unsupported', 'Cannot mount the layer lazily: this build has no lazy mounts')
  }
  return {mount: refuse, check: refuse, unmount: async () => {}, status: () => [], close: async () => {}}
}
