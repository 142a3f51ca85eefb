// Where one repository is: its hosts, and what has been learnt of them.

import type {Digest} from '../oci/digest.ts'
import type {Endpoint} from './endpoint.ts'
import type {Session} from './repository-session.ts'

/** Where the last answer about a blob came from, and which endpoint had sent us there. */
export interface ServedBy {
  readonly url: URL
  readonly endpoint: Endpoint
}

export interface RepositoryLocation {
  readonly session: Session
  /** In the order in which they are tried; a repository that is written to has exactly one. */
  readonly endpoints: readonly Endpoint[]
  /** `docker://host/path`, for messages. */
  readonly name: string
  /** Where blobs came from last, when it was not the first host itself. */
  readonly served: Map<Digest, ServedBy>
}
