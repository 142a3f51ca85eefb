// The registry client as the configuration wants it: hosts, mirrors, time limits, and where credentials come from.

import {homedir} from 'node:os'
import {join} from 'node:path'
import {describeError} from '../../lib/errors/coded-error.ts'
import type {KubernetesKeychain} from '../../lib/kubernetes/kubernetes-keychain.ts'
import {createDockerKeychain} from '../../lib/registry/docker-config.ts'
import type {Timeouts} from '../../lib/registry/http.ts'
import {chainKeychains, type Keychain} from '../../lib/registry/keychain.ts'
import type {RegistryOptions} from '../../lib/registry/registry.ts'
import type {Log} from '../process/log.ts'
import {packageVersion} from '../process/version.ts'
import type {MirrorConfig, SnapshotterConfig} from './config.ts'

type Environment = Readonly<Record<string, string | undefined>>

/** The keychains that are switched on; disposed when the daemon ends. */
export interface DaemonKeychains extends AsyncDisposable {
  /** Docker's files, then the cluster's secrets, then what the daemon itself was told, as in the reference. */
  readonly all: Keychain
}

/** `told` has the credentials that others send to the daemon. */
export async function openKeychains(
  config: SnapshotterConfig,
  {env, log, told}: {readonly env: Environment; readonly log: Log; readonly told: Keychain | undefined},
): Promise<DaemonKeychains> {
  const {kubeconfigKeychain} = config
  const docker = createDockerKeychain({env, uid: process.getuid?.()})
  const cluster = kubeconfigKeychain && (await openCluster(kubeconfigKeychain.path, env, log))
  const keychains = [docker, cluster, told].filter(keychain => keychain !== undefined)
  return {
    all: chainKeychains(keychains, error =>
      log.warn({error: describeError(error)}, 'failed to look for credentials'),
    ),
    async [Symbol.asyncDispose]() {
      await cluster?.[Symbol.asyncDispose]()
    },
  }
}

async function openCluster(path: string, env: Environment, log: Log): Promise<KubernetesKeychain> {
  const {openKubernetesKeychain} = await import('../../lib/kubernetes/kubernetes-keychain.ts')
  return openKubernetesKeychain({
    path: path || env.KUBECONFIG || join(homeOf(env), '.kube/config'),
    onFailure: reason => log.warn({error: reason}, 'no credentials from the cluster'),
  })
}

/** Services have no HOME, containers may have no entry in passwd either; then it is `/`, as runtimes choose. */
function homeOf(env: Environment): string {
  if (env.HOME) return env.HOME
  try {
    return homedir()
  } catch {
    return '/'
  }
}

/** Options of `openRegistry` for everything that the daemon reads. `program` is what it calls itself. */
export function registryOptions(
  config: SnapshotterConfig,
  {
    keychain,
    env,
    program,
  }: {readonly keychain: Keychain; readonly env: Environment; readonly program: string},
): RegistryOptions {
  const {resolver, blob} = config
  return {
    keychain,
    hostsDir: resolver.hostsDir,
    mirrorsOf: domain => (resolver.mirrors.get(domain) ?? []).map(mirrorOf),
    timeouts: timeoutsOf(resolver.requestTimeoutMs),
    retry: blob.retry,
    proxy: {
      httpProxy: env.http_proxy || env.HTTP_PROXY,
      httpsProxy: env.https_proxy || env.HTTPS_PROXY,
      noProxy: env.no_proxy || env.NO_PROXY,
    },
    userAgent: `${program}/${packageVersion()}`,
  }
}

function mirrorOf({host, insecure, headers, requestTimeoutMs}: MirrorConfig) {
  const timeouts = requestTimeoutMs === undefined ? undefined : timeoutsOf(requestTimeoutMs)
  return {address: host, plainHttp: insecure, headers, timeouts}
}

/** A body that goes quiet is asked for again: waiting for it as long as for an answer would fail whole mounts. */
const MAX_BODY_IDLE_MS = 10_000

/** `ms` is 0 for no limits. */
function timeoutsOf(ms: number): Timeouts {
  return {connectMs: ms, headersMs: ms, bodyIdleMs: Math.min(ms, MAX_BODY_IDLE_MS)}
}
