// Registry flags.

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
  /** `user[:password]`, under either name. */
  readonly user?: string | undefined
  readonly creds?: string | undefined
}
