// The composition root: what the daemon consists of, and in which order it starts and ends.

import {chmod} from 'node:fs/promises'
import {CodedError, codeOf, describeError} from '../../lib/errors/coded-error.ts'
import {createSnapshotter, type Snapshotter} from '../../lib/snapshot/snapshotter.ts'
import {createGrpcServer} from '../grpc-server.ts'
import {loadConfig, type SnapshotterConfig} from './config.ts'
import {type DaemonFlags, DEFAULT_CONFIG} from './flags.ts'
import {makeWayForSocket} from './listen-socket.ts'
import type {Log} from './log.ts'
import {createMounter} from './mounter.ts'
import {createNotify} from './notify.ts'
import {overlayOptionsOfThisMachine} from './overlay-options.ts'
import {serveSnapshots} from './snapshots-service.ts'
import {openState} from './state.ts'
import {serveLazyLayers} from './status-service.ts'

/** What ends the daemon. */
export type StopSignal = 'SIGTERM' | 'SIGINT'

export interface DaemonOptions {
  readonly flags: DaemonFlags
  readonly log: Log
  readonly env: Readonly<Record<string, string | undefined>>
  /** Aborted when the daemon is to end, with a `StopRequest` as its reason. */
  readonly stop: AbortSignal
}

/** Why a daemon's signal is aborted. */
export class StopRequest extends CodedError {
  readonly signal: StopSignal

  constructor(signal: StopSignal) {
    super('cancelled', `Stopped by ${signal}`)
    this.signal = signal
  }
}

/** How long running requests may take to end when the daemon does. */
const CLOSE_GRACE_MS = 5_000

/** Runs until stopped. SIGTERM leaves what is mounted, for the next daemon; SIGINT unmounts it. */
export async function runSnapshotter({flags, log, env, stop}: DaemonOptions): Promise<void> {
  const config = await readConfig(flags, log)
  const notify = createNotify(env.NOTIFY_SOCKET, log)
  // The table is the lock on the root directory: it comes before everything that a second daemon must not touch.
  using state = await openState(flags.root)
  await makeWayForSocket(flags.address)
  const mounter = await createMounter({config, flags, log, env})
  let how: 'leave' | 'unmount' = 'leave'
  try {
    const overlayOptions = overlayOptionsOfThisMachine()
    const snapshotter = createSnapshotter({...state, mounter, overlayOptions, log, now: () => new Date()})
    await restoreMounts(snapshotter, config, {log, signal: stop})
    mounter.resume()
    const server = createGrpcServer((method, error) => logFailure(log, method, error))
    serveSnapshots(server, snapshotter)
    serveLazyLayers(server, () => mounter.status())
    await server.listen(flags.address)
    await chmod(flags.address, 0o600)
    log.info({address: flags.address, root: flags.root}, 'serving snapshots')
    notify('READY=1')
    const signal = await stopSignalOf(stop)
    log.info({signal}, 'stopping')
    notify('STOPPING=1')
    await server.close(CLOSE_GRACE_MS)
    if (signal === 'SIGINT') {
      how = 'unmount'
      await snapshotter.unmountAll()
    }
  } finally {
    await mounter.close(how)
  }
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

/** Makes the layers of the last run readable again; throws `unavailable` when that is a condition and fails. */
async function restoreMounts(
  snapshotter: Snapshotter,
  config: SnapshotterConfig,
  {log, signal}: {readonly log: Log; readonly signal: AbortSignal},
): Promise<void> {
  const failed = await snapshotter.restore(signal)
  signal.throwIfAborted()
  if (failed.length === 0) return
  if (config.allowInvalidMountsOnRestart) {
    log.warn(
      {snapshots: failed},
      'some remote snapshots could not be restored: remove these snapshots manually',
    )
    return
  }
  throw new CodedError(
    'unavailable',
    `Cannot restore remote snapshots ${failed.map(name => `"${name}"`).join(', ')}; with "snapshotter.allow_invalid_mounts_on_restart" in the configuration the daemon starts without them, and they can be removed`,
  )
}

function stopSignalOf(stop: AbortSignal): Promise<StopSignal> {
  return new Promise(resolve => {
    const done = () => resolve(stop.reason instanceof StopRequest ? stop.reason.signal : 'SIGTERM')
    if (stop.aborted) done()
    else stop.addEventListener('abort', done, {once: true})
  })
}

function logFailure(log: Log, method: string, error: unknown): void {
  const level = codeOf(error) === 'internal' ? 'error' : 'debug'
  log[level]({method, code: codeOf(error), error: describeError(error)}, 'request failed')
}
