// Containers and their tasks: what `ctr run` does, step by step.

import {hasCode} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Labels} from './gc-labels.ts'
import {Containers} from './proto/containers_pb.ts'
import {Tasks} from './proto/tasks_pb.ts'
import type {Mount} from './proto/types_pb.ts'
import type {ContainerdStore} from './store.ts'
import type {StreamPaths} from './task-streams.ts'

/** The type that containerd gives runtime specs; the value is JSON. */
const SPEC_TYPE = 'types.containerd.io/opencontainers/runtime-spec/1/Spec'

/** containerd's runtime for runc. */
export const DEFAULT_RUNTIME = 'io.containerd.runc.v2'

const SIGKILL = 9

export interface NewContainer {
  readonly id: string
  /** Name of the image. */
  readonly image: string
  readonly labels: Labels
  readonly runtime: string
  readonly snapshotter: string
  readonly snapshotKey: string
  /** The OCI runtime spec. */
  readonly spec: object
}

/**
 * Stores a container; it keeps its snapshot from now on. Throws `already-exists`. Not abandoned half-way: the caller would
 * not know whether there is something to remove.
 */
export async function createContainer(
  {client, session}: ContainerdStore,
  container: NewContainer,
  options: CallOptions,
): Promise<void> {
  const {id, image, labels, runtime, snapshotter, snapshotKey, spec} = container
  const request = {
    container: {
      id,
      image,
      labels: {...labels},
      runtime: {name: runtime},
      snapshotter,
      snapshotKey,
      spec: {typeUrl: SPEC_TYPE, value: Buffer.from(JSON.stringify(spec))},
    },
  }
  options.signal?.throwIfAborted()
  const doing = `create the container "${id}"`
  await client.call(Containers.method.create, request, {lease: session.id, doing})
}

/** True when there is a container of this id. */
export async function hasContainer(
  {client}: ContainerdStore,
  id: string,
  options: CallOptions,
): Promise<boolean> {
  try {
    await client.call(Containers.method.get, {id}, {...options, doing: `look for the container "${id}"`})
    return true
  } catch (error) {
    if (hasCode(error, 'not-found')) return false
    throw error
  }
}

/** Removes a container's record; one that is gone is no error. Its task must be gone. */
export async function deleteContainer({client}: ContainerdStore, id: string): Promise<void> {
  await unlessGone(client.call(Containers.method.delete, {id}, {doing: `remove the container "${id}"`}))
}

/** A container's process, created and not started yet. */
export interface Task {
  readonly pid: number
  start(options: CallOptions): Promise<void>
  /** Resolves to the exit code when the process has ended; 128 + N when signal N killed it. */
  wait(): Promise<number>
  /** Sends a signal; a process that has ended already is no error. */
  kill(signal: number, options?: {readonly all?: boolean}): Promise<void>
  resize(size: {readonly columns: number; readonly rows: number}): Promise<void>
  /** Tells the task that its input has ended. */
  closeInput(): Promise<void>
  /** Removes the task; it must have ended, or never been started. */
  delete(): Promise<void>
}

export interface TaskOptions extends CallOptions {
  readonly rootfs: readonly Mount[]
  readonly streams: StreamPaths
  readonly terminal: boolean
}

/**
 * Creates the task of a container: from here on there is a process, which waits to be started. Not abandoned half-way, as
 * `createContainer`.
 */
export async function createTask(
  {client, session}: ContainerdStore,
  containerId: string,
  options: TaskOptions,
): Promise<Task> {
  const {rootfs, streams, terminal, signal} = options
  signal?.throwIfAborted()
  const request = {containerId, rootfs: [...rootfs], terminal, ...streams}
  const doing = `create the task of "${containerId}"`
  const {pid} = await client.call(Tasks.method.create, request, {lease: session.id, doing})
  const about = (what: string) => ({doing: `${what} "${containerId}"`})
  return {
    pid,
    async start(call) {
      await client.call(Tasks.method.start, {containerId}, {...call, ...about('start the task of')})
    },
    async wait() {
      return (await client.call(Tasks.method.wait, {containerId}, about('wait for'))).exitStatus
    },
    async kill(number, {all = false} = {}) {
      await unlessGone(
        client.call(Tasks.method.kill, {containerId, signal: number, all}, about('send a signal to')),
      )
    },
    async resize({columns, rows}) {
      const size = {containerId, width: columns, height: rows}
      await unlessGone(client.call(Tasks.method.resizePty, size, about('resize the terminal of')))
    },
    async closeInput() {
      await unlessGone(
        client.call(Tasks.method.closeIO, {containerId, stdin: true}, about('end the input of')),
      )
    },
    delete: () => deleteTask(client, containerId),
  }
}

/** Ends whatever runs in a container and removes its task; a container without one is fine. */
export async function destroyTask({client}: ContainerdStore, containerId: string): Promise<void> {
  const about = (what: string) => ({doing: `${what} "${containerId}"`})
  const request = {containerId, signal: SIGKILL, all: true}
  await unlessGone(client.call(Tasks.method.kill, request, about('kill')))
  await unlessGone(client.call(Tasks.method.wait, {containerId}, about('wait for')))
  await deleteTask(client, containerId)
}

async function deleteTask(client: ContainerdStore['client'], containerId: string): Promise<void> {
  const doing = `remove the task of "${containerId}"`
  await unlessGone(client.call(Tasks.method.delete, {containerId}, {doing}))
}

async function unlessGone(call: Promise<unknown>): Promise<void> {
  await call.catch(error => {
    if (!hasCode(error, 'not-found')) throw error
  })
}
