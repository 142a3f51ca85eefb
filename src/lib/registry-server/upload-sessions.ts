// Uploads in progress: each a blob being written, over any number of requests.

import {randomUUID} from 'node:crypto'
import type {BlobWriter, ContentStore} from '../oci/content-store.ts'
import type {Digest} from '../oci/digest.ts'
import {Problem} from './problem.ts'

/** Sessions open at once. Each is a file descriptor and a staged file; clients use a few. */
const MAX_SESSIONS = 256
/** A client that comes back later than this starts again. */
const IDLE_MS = 60 * 60 * 1000

export interface UploadSession {
  readonly id: string
  readonly repository: string
  /** Bytes received. */
  readonly offset: number
  /** Adds a request's body; what arrived before it broke off counts. One request at a time. */
  append(chunks: AsyncIterable<Uint8Array>): Promise<void>
  /** Ends the session, well or not. Throws `corrupt` when the bytes are not `digest`. */
  commit(digest: Digest): Promise<void>
  /** Ends the session, if it has not ended. */
  discard(): Promise<void>
}

export interface UploadSessions extends AsyncDisposable {
  start(repository: string, digest: Digest | undefined): Promise<UploadSession>
  /** Throws `BLOB_UPLOAD_UNKNOWN`. */
  get(repository: string, id: string): UploadSession
}

export function createUploadSessions(content: ContentStore): UploadSessions {
  const sessions = new Map<string, UploadSession & {readonly usedAt: number}>()

  async function discardIdle(): Promise<void> {
    const oldest = Date.now() - IDLE_MS
    for (const session of sessions.values()) if (session.usedAt < oldest) await session.discard()
  }

  return {
    async start(repository, digest) {
      await discardIdle()
      if (sessions.size >= MAX_SESSIONS) {
        throw new Problem('TOOMANYREQUESTS', `${MAX_SESSIONS} uploads are open already`)
      }
      const writer = await content.write({
        mediaType: 'application/octet-stream',
        ...(digest === undefined ? {} : {digest}),
      })
      const session = createSession(repository, writer, () => sessions.delete(session.id))
      sessions.set(session.id, session)
      return session
    },
    get(repository, id) {
      const session = sessions.get(id)
      if (session?.repository === repository) return session
      throw new Problem('BLOB_UPLOAD_UNKNOWN', 'There is no such upload in this repository')
    },
    async [Symbol.asyncDispose]() {
      for (const session of sessions.values()) await session.discard()
    },
  }
}

function createSession(
  repository: string,
  writer: BlobWriter,
  onEnd: () => void,
): UploadSession & {readonly usedAt: number} {
  let offset = 0
  let usedAt = Date.now()
  let isBusy = false
  let ended: PromiseLike<void> | undefined

  async function exclusively(body: () => Promise<void>): Promise<void> {
    if (isBusy) throw new Problem('BLOB_UPLOAD_INVALID', 'Another request is writing to this upload')
    isBusy = true
    try {
      await body()
    } finally {
      isBusy = false
      usedAt = Date.now()
    }
  }

  async function end(): Promise<void> {
    onEnd()
    await (ended ??= writer[Symbol.asyncDispose]())
  }

  return {
    id: randomUUID(),
    repository,
    get offset() {
      return offset
    },
    get usedAt() {
      return isBusy ? Date.now() : usedAt
    },
    append: chunks =>
      exclusively(async () => {
        for await (const chunk of chunks) {
          await writer.write(chunk)
          offset += chunk.length
        }
      }),
    commit: digest =>
      exclusively(async () => {
        try {
          await writer.commit({digest, size: offset})
        } finally {
          await end()
        }
      }),
    discard: end,
  }
}
