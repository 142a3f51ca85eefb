// What a look at a node says, one thing at a time.

export interface Finding {
  readonly about: 'kernel' | 'containerd' | 'snapshotter' | 'cri' | 'transfer' | 'disk' | 'image' | 'docker'
  /** A problem breaks what is said in `breaks`; a warning makes it slower, or will break it when something is changed. */
  readonly level: 'ok' | 'warning' | 'problem'
  readonly message: string
  readonly breaks?: string
  /** A command, or what to write into which file. */
  readonly remedy?: string
}
