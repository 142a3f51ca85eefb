// The built containerd-stargz-grpc with its root and socket in a temporary directory.

import {mkdtemp} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join, resolve} from 'node:path'
import {mountsBelow, startDaemon, type TestDaemon} from './daemon.ts'

export const SNAPSHOTTER = resolve(import.meta.dirname, '../../bin/containerd-stargz-grpc')

export {mountsBelow}

export type TestSnapshotter = TestDaemon

export interface TestSnapshotterOptions {
  /** Its configuration, TOML. */
  readonly config?: string
  /** The directory of its socket and everything else; by default a fresh one. */
  readonly directory?: string
  readonly env?: Readonly<Record<string, string>>
  /** A command that becomes the daemon, such as `['prlimit', '--nofile=1024']`. */
  readonly under?: readonly string[]
}

/** A fresh directory for a snapshotter, for those who must know the address before it starts. */
export function snapshotterDirectory(): Promise<string> {
  return mkdtemp(join(tmpdir(), 'ctr-remote-snapshotter-'))
}

/** The address of the snapshotter of a directory. */
export function snapshotterAddress(directory: string): string {
  return join(directory, 'grpc.sock')
}

/** Starts the daemon and waits until it serves. Needs root. */
export async function startSnapshotter(options: TestSnapshotterOptions = {}): Promise<TestSnapshotter> {
  const directory = options.directory ?? (await snapshotterDirectory())
  const address = snapshotterAddress(directory)
  const argv = ['--address', address, '--config', join(directory, 'config.toml')]
  return startDaemon({
    program: [...(options.under ?? []), SNAPSHOTTER],
    what: 'The snapshotter',
    directory,
    address,
    config: options.config ?? '',
    argv: [...argv, '--root', join(directory, 'root'), '--log-level', 'debug'],
    env: options.env ?? {},
  })
}
