// Commands that only containerd can serve.

import {type ContainerdStore, isContainerdStore} from '../lib/containerd/store.ts'
import {CodedError} from '../lib/errors/coded-error.ts'
import type {Session} from './session.ts'

/** The session's store, which must be containerd's; `doing` follows "Cannot" in the message where it is not. */
export async function containerdStore(session: Session, doing: string): Promise<ContainerdStore> {
  const store = await session.store()
  if (isContainerdStore(store)) return store
  throw new CodedError(
    'failed-precondition',
    `Cannot ${doing}: this needs containerd, and the store is the directory "${store.name}"; see --address and --store`,
  )
}
