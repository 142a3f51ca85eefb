// Writing a blob to containerd: one stream of messages to an ingest, several under way at once.

import {setTimeout as sleep} from 'node:timers/promises'
import {createDigester} from '../blob/sha256.ts'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import type {BlobWriter, CallOptions, CommitOptions, WriteHint} from '../oci/content-store.ts'
import type {Digest} from '../oci/digest.ts'
import {readInfo, updateLabels} from './blob-info.ts'
import type {ContainerdClient} from './client.ts'
import {createDataMessages} from './data-messages.ts'
import {describePlace} from './failure.ts'
import type {DuplexCall} from './grpc.ts'
import {ingestName} from './ingests.ts'
import {
  Content,
  type WriteContentRequestSchema,
  type WriteContentResponse,
  type WriteContentResponseSchema,
} from './proto/content_pb.ts'
import type {SessionLease} from './session-lease.ts'

/** Messages sent and not answered yet: enough to hide the round trip, and the bound on memory. */
const WINDOW = 4

/** Attempts to take up an ingest that is locked, and the pause between them: half a second in all. */
const ADOPT_ATTEMPTS = 6
const ADOPT_PAUSE_MS = 100

const STAT = 0
const COMMIT = 2

interface Expected {
  readonly digest: Digest
  readonly size: number
}

type WriteCall = DuplexCall<typeof WriteContentRequestSchema, typeof WriteContentResponseSchema>

/**
 * Opens an ingest: that of a killed process of ours where there is one for this blob, else a new one. The first writer of
 * a blob to commit wins, and the others find it done. An ingest whose writer was killed goes with its lease.
 */
export async function openContentWriter(
  client: ContainerdClient,
  lease: SessionLease,
  hint: WriteHint,
  options: CallOptions,
): Promise<BlobWriter> {
  const abandoned = hint.resume && hint.digest ? lease.takeAbandoned(hint.digest) : undefined
  const adopted = abandoned && (await adoptIngest(client, lease, abandoned, hint, options))
  if (adopted) return adopted
  const own = ingestName(hint.digest)
  try {
    return await openIngest(client, lease, own, hint, options)
  } catch (error) {
    await abort(client, own)
    throw error
  }
}

/** Opens what a killed process left; undefined when somebody else has taken it up, or it is gone. */
async function adoptIngest(
  client: ContainerdClient,
  lease: SessionLease,
  ref: string,
  hint: WriteHint,
  options: CallOptions,
): Promise<BlobWriter | undefined> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await openIngest(client, lease, ref, hint, options)
    } catch (error) {
      if (hasCode(error, 'not-found')) return undefined
      if (!hasCode(error, 'unavailable')) throw error
      if (attempt === ADOPT_ATTEMPTS) return undefined
    }
    // containerd may not have noticed yet that its writer is dead.
    await sleep(ADOPT_PAUSE_MS, undefined, options.signal ? {signal: options.signal} : {})
  }
}

async function openIngest(
  client: ContainerdClient,
  lease: SessionLease,
  ref: string,
  hint: WriteHint,
  options: CallOptions,
): Promise<BlobWriter> {
  const doing = `write ${hint.digest ?? 'a blob'}`
  const call = client.duplex(Content.method.write, {...options, lease: lease.id, doing})
  try {
    await call.send({
      action: STAT,
      ref,
      total: BigInt(hint.size ?? 0),
      expected: hint.digest ?? '',
    })
    // A blob that another namespace has is there from its first to its last byte, and waits to be committed.
    const {offset} = await answerOf(call, client)
    return createStreamingWriter(client, lease, {call, ref, start: hint.resume ? Number(offset) : 0}, options)
  } catch (error) {
    call.cancel()
    if (hasCode(error, 'already-exists')) return createCheckingWriter(client, lease)
    throw error
  }
}

interface Ingest {
  readonly call: WriteCall
  readonly ref: string
  /** Bytes that were there when it was opened. */
  readonly start: number
}

function createStreamingWriter(
  client: ContainerdClient,
  lease: SessionLease,
  {call, ref, start}: Ingest,
  opened: CallOptions,
): BlobWriter {
  const messages = createDataMessages(WINDOW)
  let offset = start
  let unanswered = 0
  let over = false

  async function answered(): Promise<void> {
    await answerOf(call, client)
    unanswered -= 1
  }

  async function flush(): Promise<void> {
    if (messages.size() === 0) return
    opened.signal?.throwIfAborted()
    // The buffer that is filled next belongs to a message that must have arrived.
    while (unanswered >= WINDOW - 1) await answered()
    unanswered += 1
    const size = messages.size()
    await call.sendEncoded(messages.take(offset))
    offset += size
  }

  async function write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; ) {
      at += messages.add(bytes.subarray(at))
      if (messages.isFull()) await flush()
    }
  }

  async function commit(expected: Expected, options: CommitOptions): Promise<void> {
    await flush()
    while (unanswered > 0) await answered()
    if (offset !== expected.size) {
      throw new CodedError(
        'corrupt',
        `Cannot write ${expected.digest} to ${describePlace(client)}: got ${offset} bytes instead of ${expected.size}`,
      )
    }
    const {digest, size} = expected
    await call.send({
      action: COMMIT,
      offset: BigInt(offset),
      total: BigInt(size),
      expected: digest,
      labels: {...options.labels},
    })
    try {
      await answerOf(call, client)
      over = true
    } catch (error) {
      // containerd says "failed precondition" of bytes with another digest.
      if (hasCode(error, 'failed-precondition')) throw mismatch(expected, client, error)
      if (!hasCode(error, 'already-exists')) throw error
      await adopt(client, lease, expected, options)
    }
  }

  return {
    offset: start,
    write,
    commit: (expected, options = {}) => commit(expected, options),
    async [Symbol.asyncDispose]() {
      if (over) return call.end()
      over = true
      call.cancel()
      await abort(client, ref)
    },
  }
}

/** The blob is there already: what is written is only checked, as the contract of a writer demands. */
function createCheckingWriter(client: ContainerdClient, lease: SessionLease): BlobWriter {
  const digester = createDigester()
  let size = 0
  return {
    async write(bytes) {
      digester.update(bytes)
      size += bytes.length
    },
    async commit(expected, options = {}) {
      if (size !== expected.size || digester.digest() !== expected.digest) throw mismatch(expected, client)
      await adopt(client, lease, expected, options)
    },
    async [Symbol.asyncDispose]() {},
  }
}

/** Takes a blob that somebody else committed as our own. */
async function adopt(
  client: ContainerdClient,
  lease: SessionLease,
  expected: Expected,
  options: CommitOptions,
): Promise<void> {
  await lease.keep('content', expected.digest, options)
  if (!(await readInfo(client, expected.digest, options))) {
    throw new CodedError(
      'unavailable',
      `Cannot write ${expected.digest} to ${describePlace(client)}: it was there, and was removed meanwhile; try again`,
    )
  }
  await updateLabels(client, expected.digest, options.labels ?? {}, options)
}

async function answerOf(call: WriteCall, client: ContainerdClient): Promise<WriteContentResponse> {
  const answer = await call.receive()
  if (answer) return answer
  throw new CodedError('unavailable', `Cannot write a blob: ${describePlace(client)} ended the stream`)
}

/** Best effort: an ingest that cannot be aborted goes with its lease. */
async function abort(client: ContainerdClient, ref: string): Promise<void> {
  try {
    await client.call(Content.method.abort, {ref}, {doing: `abort the ingest "${ref}"`})
  } catch (error) {
    if (!(error instanceof CodedError)) throw error
  }
}

function mismatch(expected: Expected, client: ContainerdClient, cause?: unknown): CodedError {
  return new CodedError(
    'corrupt',
    `Cannot write ${expected.digest} to ${describePlace(client)}: what arrived is something else`,
    {cause},
  )
}
