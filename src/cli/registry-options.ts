// Registry flags and the environment, as the options of the registry client.

import {createDockerKeychain} from '../lib/registry/docker-config.ts'
import {type Credential, parseUser} from '../lib/registry/keychain.ts'
import type {RegistryOptions} from '../lib/registry/registry.ts'
import type {RequestTrace} from '../lib/registry/trace.ts'
import {formatDuration} from './units.ts'

/** Parsed registry flags; commands that reach no registry leave them out. */
export interface RegistryFlags {
  readonly 'skip-verify'?: boolean
  readonly 'plain-http'?: boolean
  readonly 'hosts-dir'?: string | undefined
  readonly tlscacert?: string | undefined
  readonly tlscert?: string | undefined
  readonly tlskey?: string | undefined
  readonly refresh?: string | undefined
  readonly 'http-dump'?: boolean
  readonly 'http-trace'?: boolean
  /** `user:password` of the registry. */
  readonly creds?: string | undefined
  /** As `creds`, for what is read and what is written alone. */
  readonly 'src-creds'?: string | undefined
  readonly 'dest-creds'?: string | undefined
}

/** `say` prints traces. Throws `invalid-argument` for credentials that are none. */
export function registryOptions(
  flags: RegistryFlags,
  process: {readonly env: NodeJS.ProcessEnv; readonly uid: number | undefined; readonly userAgent: string},
  say: (line: string) => void,
): RegistryOptions {
  const {env, uid, userAgent} = process
  const dump = flags['http-dump'] ?? false
  return {
    skipVerify: flags['skip-verify'],
    plainHttp: flags['plain-http'],
    hostsDir: flags['hosts-dir'],
    tlscacert: flags.tlscacert,
    tlscert: flags.tlscert,
    tlskey: flags.tlskey,
    keychain: createDockerKeychain({env, uid}),
    credential: credentialFrom(flags),
    proxy: {
      // Lower case first, as curl does; HTTP_PROXY in capitals is a header's name where CGI is involved.
      httpProxy: env.http_proxy || env.HTTP_PROXY,
      httpsProxy: env.https_proxy || env.HTTPS_PROXY,
      noProxy: env.no_proxy || env.NO_PROXY,
    },
    userAgent,
    onRequest: dump || flags['http-trace'] ? trace => describeTrace(trace, dump).forEach(say) : undefined,
  }
}

/** Lines about a request: one, and with `dump` one for each header. */
export function describeTrace(trace: RequestTrace, dump: boolean): string[] {
  const {method, url, status, error, durationMs, requestHeaders, responseHeaders = {}} = trace
  const outcome = status ?? `failed (${error})`
  const summary = `${method} ${url} ${outcome}  ${formatDuration(durationMs)}`
  if (!dump) return [summary]
  const headers = (mark: string, all: Readonly<Record<string, string>>) =>
    Object.entries(all).map(([name, value]) => `${mark} ${name}: ${value}`)
  return [summary, ...headers('>', requestHeaders), ...headers('<', responseHeaders)]
}

function credentialFrom({refresh, creds}: RegistryFlags): Credential | undefined {
  if (refresh) return {kind: 'identity', token: refresh}
  return creds ? parseUser(creds) : undefined
}
