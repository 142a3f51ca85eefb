// Every kind of place for images, put together.

import {
  openDockerArchiveSource,
  openDockerArchiveTarget,
  openOciArchiveSource,
  openOciArchiveTarget,
} from '../lib/archive/archive-transports.ts'
import {
  openDockerArchiveSource,
  openDockerArchiveTarget,
  openOciArchiveSource,
  openOciArchiveTarget,
} from '../lib/archive/archive-transports.ts'
import {CodedError} from '../lib/errors/coded-error.ts'
import {createLayoutSource, createLayoutTarget} from '../lib/layout/oci-directory.ts'
import type {Store} from '../lib/oci/image-store.ts'
import type {Transport, TransportContext} from '../lib/transport/open-image.ts'
import type {SessionFlags} from './session.ts'

/** What transports are made from. */
export interface TransportSettings {
  readonly flags: SessionFlags
  readonly userAgent: string
  readonly signal: AbortSignal
  readonly store: () => Promise<Store>
  readonly say: (message: string) => void
}

/** Transports, and what they hold open. */
export async function openTransports(
  settings: TransportSettings,
): Promise<TransportContext & AsyncDisposable> {
  const {signal, store} = settings
  return {
    signal,
    store,
    registry: missing('docker://'),
    layout: {source: createLayoutSource, target: createLayoutTarget},
    ociArchive: {source: openOciArchiveSource, target: openOciArchiveTarget},
    dockerArchive: {source: openDockerArchiveSource, target: openDockerArchiveTarget},
    async [Symbol.asyncDispose]() {},
  }
}

function missing<Location>(name: string): Transport<Location> {
  const refuse = () => {
    throw new CodedError('unsupported', `Cannot use ${name} yet`)
  }
  return {source: refuse, target: refuse}
}
