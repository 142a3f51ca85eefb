// Connections to upstreams: a session for each client, whose credentials it alone has, and one of our own, for what nobody
// has asked for by a pull.

import {ANONYMOUS, type Credential, type Keychain} from '../registry/keychain.ts'
import {openRegistry, type Registry, type RegistryOptions} from '../registry/registry.ts'
import type {Repository} from '../registry/repository.ts'
import type {Client} from './client.ts'
import type {SourceRepository} from './upstreams.ts'

/** Sessions that are kept though nobody uses them; each has some connections, and tokens. */
const MAX_IDLE = 64

/** A repository opened for one client; disposing it leaves the session to others. */
export interface OpenRepository extends AsyncDisposable {
  readonly repository: Repository
}

interface Session {
  readonly registry: Registry
  readonly repositories: Map<string, Repository>
  users: number
}

/** How upstreams are reached, whoever asks. */
export type UpstreamOptions = Omit<RegistryOptions, 'keychain' | 'credential'>

/** No client's key is like it. */
const OWN = 'own'

/** Repositories that a session remembers; what is forgotten costs reading a configuration again. */
const MAX_REPOSITORIES = 256

export class UpstreamSessions implements AsyncDisposable {
  readonly #options: UpstreamOptions
  readonly #ownKeychain: Keychain
  /** By client, the least recently used first. */
  readonly #sessions = new Map<string, Session>()

  /** `ownKeychain` has our own credentials, for `openOwn` alone. */
  constructor(options: UpstreamOptions, ownKeychain: Keychain) {
    this.#options = options
    this.#ownKeychain = ownKeychain
  }

  /** Opens a repository with a client's credentials, or without where they are not for its registry. */
  open({key, credential}: Client, source: SourceRepository): OpenRepository {
    const own = source.mayAuthenticate ? credential : undefined
    return this.#open(own === undefined ? '' : key, source, ANONYMOUS, own)
  }

  /** Opens a repository with our own credentials: never to answer anybody with what they let us read. */
  openOwn(source: SourceRepository): OpenRepository {
    return this.#open(OWN, source, source.mayAuthenticate ? this.#ownKeychain : ANONYMOUS, undefined)
  }

  #open(
    name: string,
    source: SourceRepository,
    keychain: Keychain,
    credential: Credential | undefined,
  ): OpenRepository {
    const session = this.#sessions.get(name) ?? {
      registry: openRegistry({...this.#options, keychain, credential}),
      repositories: new Map<string, Repository>(),
      users: 0,
    }
    this.#sessions.delete(name)
    this.#sessions.set(name, session)
    session.users++
    return {
      repository: repositoryOfSession(session, source),
      [Symbol.asyncDispose]: async () => {
        session.users--
        await this.#closeIdle()
      },
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const sessions = [...this.#sessions.values()]
    this.#sessions.clear()
    for (const {registry} of sessions) await registry[Symbol.asyncDispose]()
  }

  async #closeIdle(): Promise<void> {
    const idle = [...this.#sessions].filter(([, {users}]) => users === 0)
    for (const [name, {registry}] of idle.slice(0, Math.max(0, idle.length - MAX_IDLE))) {
      this.#sessions.delete(name)
      await registry[Symbol.asyncDispose]()
    }
  }
}

function repositoryOfSession(
  {registry, repositories}: Session,
  {name, reference}: SourceRepository,
): Repository {
  const repository = repositories.get(name) ?? registry.repository(reference, {access: 'pull'})
  repositories.delete(name)
  repositories.set(name, repository)
  const [oldest] = repositories.keys()
  if (repositories.size > MAX_REPOSITORIES && oldest !== undefined) repositories.delete(oldest)
  return repository
}
