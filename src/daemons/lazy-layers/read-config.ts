// A daemon's configuration, with what is odd about its file in the log.

import type {Log} from '../process/log.ts'
import {loadConfig, type SnapshotterConfig} from './config.ts'

/** Throws `invalid-argument`. */
export async function readConfig(
  path: string,
  {mayBeMissing, log}: {readonly mayBeMissing: boolean; readonly log: Log},
): Promise<SnapshotterConfig> {
  const {config, unknownKeys, withoutEffect} = await loadConfig(path, mayBeMissing)
  for (const key of unknownKeys) log.warn({key, config: path}, 'unknown key in the configuration')
  for (const {key, reason} of withoutEffect) {
    log.warn({key, reason, config: path}, 'key of the configuration has no effect')
  }
  if (config.debug) log.level = 'debug'
  return config
}
