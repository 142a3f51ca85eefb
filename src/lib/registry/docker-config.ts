// Credentials that `docker login` and `podman login` stored: config.json, auth.json and docker-credential-* helpers.

import {readFile, stat} from 'node:fs/promises'
import {join} from 'node:path'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {isRecord} from '../oci/descriptor.ts'
import type {Credential, Keychain} from './keychain.ts'

export interface DockerKeychainOptions {
  /** The process's environment: DOCKER_CONFIG, HOME, XDG_*, REGISTRY_AUTH_FILE, and PATH for helpers. */
  readonly env: Readonly<Record<string, string | undefined>>
  /** The user's numeric id, for podman's default of `/run/containers/<uid>`. */
  readonly uid?: number | undefined
}

interface AuthConfig {
  readonly auths: Readonly<Record<string, unknown>>
  readonly credsStore: string | undefined
  readonly credHelpers: Readonly<Record<string, unknown>>
}

/** Largest configuration file that is read, bytes. */
const MAX_CONFIG_FILE = 4 * 1024 * 1024
/** Most output of a helper, characters. */
const MAX_HELPER_OUTPUT = 256 * 1024
const HELPER_TIMEOUT_MS = 30_000
/** What `docker login` calls Docker Hub. */
const DOCKER_HUB_KEY = 'https://index.docker.io/v1/'

/**
 * A keychain over Docker's and podman's files, Docker's first. Files are read again when they have changed, so that a
 * long-running process notices a new login. Missing files are no error; malformed ones throw `failed-precondition`.
 */
export function createDockerKeychain(options: DockerKeychainOptions): Keychain {
  const files = authFiles(options).map(createConfigFile)
  return {
    async find(host, path, call = {}) {
      for (const file of files) {
        const config = await file()
        const found = config && (await findIn(config, host, path, options.env, call))
        if (found) return found
      }
      return undefined
    },
  }
}

/** The files that may hold logins, in order of precedence. */
export function authFiles({env, uid}: DockerKeychainOptions): string[] {
  const home = env.HOME || undefined
  const runtime = env.XDG_RUNTIME_DIR || (uid === undefined ? undefined : `/run/containers/${uid}`)
  const config = env.XDG_CONFIG_HOME || (home && join(home, '.config'))
  const docker = env.DOCKER_CONFIG || (home && join(home, '.docker'))
  const podman = env.XDG_RUNTIME_DIR ? 'containers/auth.json' : 'auth.json'
  return [
    docker && join(docker, 'config.json'),
    env.REGISTRY_AUTH_FILE || undefined,
    runtime && join(runtime, podman),
    config && join(config, 'containers', 'auth.json'),
  ].filter(path => path !== undefined)
}

/**
 * What the text of a `config.json` says about hosts, without its helpers: those are for files of this machine. `source`
 * names it in errors. Throws `failed-precondition` for text that is none.
 */
export function parseDockerAuths(
  text: string,
  source: string,
): (host: string, path: string) => Credential | undefined {
  const {auths} = parseAuthConfig(text, source)
  return (host, path) => findInAuths(auths, hostNames(host), path)
}

/** A reader that parses the file again only after it has changed. */
function createConfigFile(path: string): () => Promise<AuthConfig | undefined> {
  let known: {readonly version: string; readonly config: AuthConfig} | undefined
  return async () => {
    try {
      const {mtimeMs, ctimeMs, size, ino} = await stat(path)
      const version = [mtimeMs, ctimeMs, size, ino].join()
      if (known?.version === version) return known.config
      if (size > MAX_CONFIG_FILE) throw malformed(path, `it exceeds ${MAX_CONFIG_FILE} bytes`)
      known = {version, config: parseAuthConfig(await readFile(path, 'utf8'), path)}
      return known.config
    } catch (error) {
      if (hasCode(error, 'not-found')) return undefined
      if (error instanceof CodedError) throw error
      throw new CodedError('failed-precondition', `Cannot read ${path}`, {cause: error})
    }
  }
}

function parseAuthConfig(text: string, path: string): AuthConfig {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    // The parser's message would quote the file, which holds passwords.
    throw malformed(path, 'it is not JSON')
  }
  if (!isRecord(value)) throw malformed(path, 'it is not a JSON object')
  const {auths = {}, credsStore, credHelpers = {}} = value
  if (!isRecord(auths)) throw malformed(path, '"auths" is not an object')
  if (!isRecord(credHelpers)) throw malformed(path, '"credHelpers" is not an object')
  if (credsStore !== undefined && typeof credsStore !== 'string') {
    throw malformed(path, '"credsStore" is not a string')
  }
  return {auths, credHelpers, credsStore: credsStore || undefined}
}

async function findIn(
  config: AuthConfig,
  host: string,
  path: string,
  env: DockerKeychainOptions['env'],
  call: CallOptions,
): Promise<Credential | undefined> {
  const names = hostNames(host)
  const chosen = names.map(name => config.credHelpers[name]).find(helper => typeof helper === 'string')
  const helper = (chosen as string | undefined) || config.credsStore
  if (helper) {
    const found = await askHelper(helper, names[0]!, env, call)
    if (found) return found
  }
  return findInAuths(config.auths, names, path)
}

/** How a host may be called, the name that helpers are asked for first. */
function hostNames(host: string): string[] {
  return host === 'docker.io'
    ? [DOCKER_HUB_KEY, 'docker.io', 'index.docker.io', 'registry-1.docker.io']
    : [host]
}

/** The entry for the longest prefix of `host/path` (containers-auth.json), down to the host itself. */
function findInAuths(
  auths: Readonly<Record<string, unknown>>,
  names: readonly string[],
  path: string,
): Credential | undefined {
  const entries = new Map(Object.entries(auths).map(([key, entry]) => [normalizeKey(key), entry]))
  const components = path.split('/')
  for (let count = components.length; count >= 0; count--) {
    for (const name of names) {
      const key = [normalizeKey(name), ...components.slice(0, count)].join('/')
      const credential = parseEntry(entries.get(key))
      if (credential) return credential
    }
  }
  return undefined
}

/** Docker's keys may be URLs of its old API: `https://index.docker.io/v1/` is `index.docker.io`. */
function normalizeKey(key: string): string {
  const bare = key.replace(/^https?:\/\//i, '').replace(/\/+$/, '')
  return bare.replace(/\/v[12]$/, '')
}

function parseEntry(entry: unknown): Credential | undefined {
  if (!isRecord(entry)) return undefined
  const {auth, username, password, identitytoken, registrytoken} = entry
  if (typeof registrytoken === 'string' && registrytoken) return {kind: 'bearer', token: registrytoken}
  if (typeof identitytoken === 'string' && identitytoken) return {kind: 'identity', token: identitytoken}
  if (typeof auth === 'string' && auth) {
    const text = Buffer.from(auth, 'base64').toString('utf8').replace(/\0+$/, '')
    const colon = text.indexOf(':')
    if (colon > 0) return {kind: 'password', username: text.slice(0, colon), password: text.slice(colon + 1)}
  }
  if (typeof username === 'string' && username && typeof password === 'string') {
    return {kind: 'password', username, password}
  }
  return undefined
}

/** Runs `docker-credential-<name> get` (docker/docker-credential-helpers, README). */
async function askHelper(
  name: string,
  server: string,
  env: DockerKeychainOptions['env'],
  {signal}: CallOptions,
): Promise<Credential | undefined> {
  if (!/^[\w.-]+$/.test(name)) {
    throw new CodedError(
      'failed-precondition',
      `Cannot use credential helper ${JSON.stringify(name)}: no valid name`,
    )
  }
  const program = `docker-credential-${name}`
  const {execa} = await import('execa')
  const result = await execa(program, ['get'], {
    input: server,
    env: {...env},
    extendEnv: false,
    reject: false,
    maxBuffer: MAX_HELPER_OUTPUT,
    timeout: HELPER_TIMEOUT_MS,
    ...(signal ? {cancelSignal: signal} : {}),
  })
  signal?.throwIfAborted()
  if (!result.failed) return parseHelperOutput(result.stdout, program)
  // The protocol has no code for "not found": these words are its contract.
  if (/credentials not found/i.test(`${result.stdout}${result.stderr}`)) return undefined
  const reason =
    result.code === 'ENOENT'
      ? 'it is not installed, or not on the PATH'
      : result.timedOut
        ? 'it did not answer in time'
        : `exit code ${result.exitCode ?? 'unknown'}`
  throw new CodedError(
    'failed-precondition',
    `Cannot get the credentials of ${server} from ${program}: ${reason}`,
  )
}

function parseHelperOutput(text: string, program: string): Credential | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    value = undefined
  }
  if (!isRecord(value) || typeof value.Username !== 'string' || typeof value.Secret !== 'string') {
    throw new CodedError('failed-precondition', `Cannot use the answer of ${program}: not the expected JSON`)
  }
  const {Username: username, Secret: secret} = value
  if (!secret) return undefined
  return username === '<token>'
    ? {kind: 'identity', token: secret}
    : {kind: 'password', username, password: secret}
}

function malformed(path: string, problem: string): CodedError {
  return new CodedError('failed-precondition', `Cannot use ${path}: ${problem}`)
}
