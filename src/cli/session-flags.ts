// The flags that every command which opens something has.

import type {RegistryFlags} from './registry-options.ts'

/** Parsed flags that a session looks at; commands without a group of flags leave it out. */
export interface SessionFlags extends RegistryFlags {
  readonly store: 'auto' | 'containerd' | 'local' | 'podman'
  readonly 'data-dir'?: string | undefined
  readonly address: string
  readonly namespace: string
  readonly timeout: number
  readonly 'connect-timeout': number
  readonly verbose: boolean
  readonly debug: boolean
  readonly progress?: 'auto' | 'plain' | 'none'
  readonly quiet?: boolean
}
