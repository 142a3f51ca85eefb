// Which servers are trusted: those that Node's own authorities, the system's (as for Go programs) or given ones vouch for.

import {createSecureContext, getCACertificates, type SecureContext, type SecureContextOptions} from 'node:tls'

/** TLS settings of a connection; certificates and keys are PEM text. */
export interface TlsSettings {
  readonly skipVerify: boolean
  /** Trusted beside the system's authorities. */
  readonly ca: readonly string[]
  readonly clients: readonly {readonly cert: string; readonly key: string}[]
}

/** Contexts for connections to servers; both are made once, for parsing authorities takes long. */
export interface Trust {
  /** Some of the authorities, soon: those that were given, or Node's own, which it reads in a thread of its own. */
  readonly quick: SecureContext
  /** All of them: reading the system's takes 50 ms of a processor and more. */
  all(): SecureContext
}

export function createTrust(tls: TlsSettings): Trust {
  const {ca, clients} = tls
  const own: SecureContextOptions =
    clients.length > 0 ? {cert: clients.map(pair => pair.cert), key: clients.map(pair => pair.key)} : {}
  let all: SecureContext | undefined
  return {
    quick: createSecureContext(ca.length > 0 ? {...own, ca: [...ca]} : own),
    all() {
      all ??= createSecureContext({
        ...own,
        ca: [...new Set([...getCACertificates('default'), ...getCACertificates('system'), ...ca])],
      })
      return all
    },
  }
}

/**
 * OpenSSL's codes for chains that no known authority vouches for (openssl-verify(1)). Other mistakes, such as another name
 * or a certificate that has expired, are none that more authorities would mend.
 */
const UNKNOWN_AUTHORITY: ReadonlySet<unknown> = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
])

/** Whether a connection has failed because the authorities that were asked do not know the server's. */
export function isUnknownAuthority(error: Error): boolean {
  return 'code' in error && UNKNOWN_AUTHORITY.has(error.code)
}
