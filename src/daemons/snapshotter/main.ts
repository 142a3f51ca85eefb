// The composition root: what the daemon consists of, and in which order it starts and ends.

import {chmod} from 'node:fs/promises'
import {CodedError, codeOf, describeError} from '../../lib/errors/coded-error.ts'
import type {Snapshotter} from '../../lib/snapshot/snapshotter.ts'
import {createGrpcServer} from '../grpc-server.ts'
import {loadConfig, type SnapshotterConfig} from './config.ts'
import {type DaemonFlags, DEFAULT_CONFIG} from './flags.ts'
import {makeWayForSocket} from './listen-socket.ts'
import type {Log} from './log.ts'
import {createMounter} from './mounter.ts'
import {serveSnapshots} from './snapshots-service.ts'
import {openSnapshotter} from './snapshotter.ts'
import {serveLazyLayers} from './status-service.ts'

export interface DaemonOptions {
  readonly flags: DaemonFlags
  readonly log: Log
  readonly env: Readonly<Record<string, string | undefined>>
  /** Resolves with the signal that ends the daemon; may resolve before it has started. */
  readonly stopped: Promise<'SIGTERM' | 'SIGINT'>
}

/** How long running requests may take to end when the daemon does. */
const CLOSE_GRACE_MS = 5_000

/** Runs until stopped. SIGTERM leaves what is mounted, for the next daemon; SIGINT unmounts it. */
export async function runSnapshotter(options: DaemonOptions): Promise<void> {
  const {flags, log} = options
  const config = await readConfig(flags, log)
  await makeWayForSocket(flags.address)
  const mounter = await createMounter({config, flags, log, env: options.env})
  using state = await openSnapshotter(flags.root, mounter, log)
  await restoreMounts(state.snapshotter, config, log)
  const server = createGrpcServer((method, error) => logFailure(log, method, error))
  serveSnapshots(server, state.snapshotter)
  serveLazyLayers(server, () => mounter.status())
  await server.listen(flags.address)
  await chmod(flags.address, 0o600)
  log.info({address: flags.address, root: flags.root}, 'serving snapshots')
  const signal = await options.stopped
  log.info({signal}, 'stopping')
  await server.close(CLOSE_GRACE_MS)
  if (signal === 'SIGINT') await state.snapshotter.unmountAll()
  await mounter.close(signal === 'SIGINT' ? 'unmount' : 'leave')
}

async function readConfig(flags: DaemonFlags, log: Log): Promise<SnapshotterConfig> {
  const mayBeMissing = flags.config === DEFAULT_CONFIG
  const {config, unknownKeys, withoutEffect} = await loadConfig(flags.config, mayBeMissing)
  for (const key of unknownKeys) log.warn({key, config: flags.config}, 'unknown key in the configuration')
  for (const {key, reason} of withoutEffect) {
    log.warn({key, reason, config: flags.config}, 'key of the configuration has no effect')
  }
  return config
}

/** Makes the layers of the last run readable again. */
async function restoreMounts(snapshotter: Snapshotter, config: SnapshotterConfig, log: Log): Promise<void> {
  const failed = await snapshotter.restore(new AbortController().signal)
  if (failed.length === 0) return
  if (config.allowInvalidMountsOnRestart) {
    log.warn({snapshots: failed}, 'starting without some remote snapshots: remove these snapshots manually')
    return
  }
  throw new CodedError(
    'unavailable',
    `Cannot make ${failed.length} remote snapshot${failed.length === 1 ? '' : 's'} readable again, for example "${failed[0]}"; set "snapshotter.allow_invalid_mounts_on_restart" to start without, and remove ${failed.length === 1 ? 'it' : 'them'} manually`,
  )
}

/** `already-exists` is how a remote snapshotter says that a layer is there. */
function logFailure(log: Log, method: string, error: unknown): void {
  const level = codeOf(error) === 'internal' ? 'error' : 'debug'
  log[level]({method, code: codeOf(error), error: describeError(error)}, 'request failed')
}
