// kubeconfig files: which API server, and who we are to it.
// Source: kubernetes.io/docs/reference/config-api/kubeconfig.v1

import {readFile} from 'node:fs/promises'
import {dirname, resolve} from 'node:path'
import {parse} from 'yaml'
import {CodedError} from '../errors/coded-error.ts'
import {basicAuthorization} from '../io/basic-authorization.ts'
import {isRecord} from '../oci/descriptor.ts'
import type {TlsSettings} from '../registry/trust.ts'

/** What a request to the API server needs. */
export interface ClusterAccess {
  /** The server's URL, without a trailing slash. */
  readonly server: string
  readonly tls: TlsSettings
  /** The Authorization header; undefined for a client certificate alone. */
  readonly authorization: string | undefined
}

/** Larger files are no kubeconfig. */
const MAX_KUBECONFIG = 4 * 1024 * 1024

/**
 * Reads the file's current context. Files that it names are read too, relative to it. Throws `not-found` when the file is
 * not there (yet), `unsupported` for credentials from a plugin, `failed-precondition` for everything that is wrong.
 */
export async function readKubeconfig(path: string): Promise<ClusterAccess> {
  const text = await readFile(path, 'utf8')
  if (text.length > MAX_KUBECONFIG) throw malformed(path, `it exceeds ${MAX_KUBECONFIG} bytes`)
  const config = parseYaml(text, path)
  const context = find(config, 'contexts', config['current-context'], 'context', path)
  const cluster = find(config, 'clusters', context.cluster, 'cluster', path)
  const user = context.user === undefined ? {} : find(config, 'users', context.user, 'user', path)
  const file = (name: string) => resolve(dirname(path), name)

  /** PEM text, from the field or from the file that the other field names. */
  async function pem(of: Record<string, unknown>, field: string): Promise<string | undefined> {
    const data = stringOf(of, `${field}-data`, path)
    if (data !== undefined) return Buffer.from(data, 'base64').toString('utf8')
    const name = stringOf(of, field, path)
    return name === undefined ? undefined : await readFile(file(name), 'utf8')
  }

  const server = stringOf(cluster, 'server', path)
  if (server === undefined || !/^https?:$/.test(URL.parse(server)?.protocol ?? '')) {
    throw malformed(path, 'its cluster has no usable "server"')
  }
  if (user.exec !== undefined || user['auth-provider'] !== undefined) {
    throw new CodedError('unsupported', `Cannot use ${path}: it takes credentials from a plugin`)
  }
  const ca = await pem(cluster, 'certificate-authority')
  const [cert, key] = [await pem(user, 'client-certificate'), await pem(user, 'client-key')]
  return {
    server: server.replace(/\/+$/, ''),
    tls: {
      skipVerify: cluster['insecure-skip-tls-verify'] === true,
      ca: ca === undefined ? [] : [ca],
      clients: cert === undefined || key === undefined ? [] : [{cert, key}],
    },
    authorization: await authorizationOf(user, file, path),
  }
}

async function authorizationOf(
  user: Record<string, unknown>,
  file: (name: string) => string,
  path: string,
): Promise<string | undefined> {
  const tokenFile = stringOf(user, 'tokenFile', path)
  const token =
    tokenFile === undefined ? stringOf(user, 'token', path) : (await readFile(file(tokenFile), 'utf8')).trim()
  if (token !== undefined) return `Bearer ${token}`
  const [username, password] = [stringOf(user, 'username', path), stringOf(user, 'password', path)]
  if (username === undefined || password === undefined) return undefined
  return basicAuthorization({username, password})
}

function parseYaml(text: string, path: string): Record<string, unknown> {
  let value: unknown
  try {
    value = parse(text, {maxAliasCount: 0})
  } catch {
    // The parser's message would quote the file, which holds secrets.
    throw malformed(path, 'it is not YAML')
  }
  if (!isRecord(value)) throw malformed(path, 'it is no kubeconfig')
  return value
}

/** The entry named `name` of a list of `{name, <field>}`. */
function find(
  config: Record<string, unknown>,
  list: string,
  name: unknown,
  field: string,
  path: string,
): Record<string, unknown> {
  const entries: unknown[] = Array.isArray(config[list]) ? config[list] : []
  const entry = entries.find(candidate => isRecord(candidate) && candidate.name === name)
  const found = isRecord(entry) ? entry[field] : undefined
  if (!isRecord(found)) throw malformed(path, `it has no ${field} ${JSON.stringify(name ?? '')}`)
  return found
}

function stringOf(of: Record<string, unknown>, field: string, path: string): string | undefined {
  const value = of[field]
  if (value === undefined || value === null || value === '') return undefined
  if (typeof value === 'string') return value
  throw malformed(path, `"${field}" is no string`)
}

function malformed(path: string, problem: string): CodedError {
  return new CodedError('failed-precondition', `Cannot use ${path}: ${problem}`)
}
