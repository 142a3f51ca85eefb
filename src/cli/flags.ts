// Flags that several commands share, with the names, letters and variables of `ctr`.

import * as Flags from '@oclif/core/flags'
import {parseDurationMs} from './duration.ts'
import {USUAL_ADDRESS} from './stores.ts'

const duration = Flags.custom<number>({parse: async text => parseDurationMs(text)})

/** Understood by every command, before or after its name. */
export const globalFlags = {
  store: Flags.option({options: ['auto', 'containerd', 'local', 'podman'] as const})({
    helpGroup: 'GLOBAL',
    description:
      'where images live; auto takes containerd when its socket is there; podman is for rpull, ls, rm, lazy status and prune',
    env: 'CTR_REMOTE_STORE',
    default: 'auto',
    helpValue: 'auto|containerd|local|podman',
  }),
  'data-dir': Flags.string({
    helpGroup: 'GLOBAL',
    description: 'directory of the local store (default: $XDG_DATA_HOME/ctr-remote)',
    env: 'CTR_REMOTE_DATA_DIR',
  }),
  address: Flags.string({
    char: 'a',
    helpGroup: 'GLOBAL',
    description: "containerd's socket",
    env: 'CONTAINERD_ADDRESS',
    default: USUAL_ADDRESS,
  }),
  namespace: Flags.string({
    char: 'n',
    helpGroup: 'GLOBAL',
    description: 'namespace of containerd',
    env: 'CONTAINERD_NAMESPACE',
    default: 'default',
  }),
  timeout: duration({
    helpGroup: 'GLOBAL',
    description: 'give up after this long (30s, 5m; 0 waits)',
    default: 0,
  }),
  'connect-timeout': duration({
    helpGroup: 'GLOBAL',
    description: 'give up connecting to containerd after this long',
    default: 0,
  }),
  verbose: Flags.boolean({char: 'v', helpGroup: 'GLOBAL', description: 'say which store is used'}),
  debug: Flags.boolean({helpGroup: 'GLOBAL', description: 'say more, and where errors come from'}),
}

/** containerd as a service of this machine. */
export const containerdServiceFlags = {
  'containerd-unit': Flags.string({description: "containerd's unit", default: 'containerd.service'}),
  containerd: Flags.string({description: "containerd's program (default: what its unit starts)"}),
  'containerd-config': Flags.string({
    description: "containerd's configuration file (default: what its unit says)",
  }),
}

/** Where the layer store listens whose images Podman sees. */
export const layerStoreFlags = {
  'store-address': Flags.string({
    description: "stargz-store's socket, with --store podman",
    env: 'STARGZ_STORE_ADDRESS',
    default: '/var/lib/stargz-store/store.sock',
  }),
}

/** How to reach and to trust a registry. */
export const registryFlags = {
  'skip-verify': Flags.boolean({
    char: 'k',
    helpGroup: 'REGISTRY',
    description: 'do not check TLS certificates',
  }),
  'plain-http': Flags.boolean({
    helpGroup: 'REGISTRY',
    description: 'use HTTP without TLS (hosts on the loopback interface need no flag)',
  }),
  'hosts-dir': Flags.string({
    helpGroup: 'REGISTRY',
    description: "directory of hosts.toml files, as containerd's certs.d",
  }),
  tlscacert: Flags.string({helpGroup: 'REGISTRY', description: 'file of the certificate authority to trust'}),
  tlscert: Flags.string({
    helpGroup: 'REGISTRY',
    description: 'file of the client certificate',
    dependsOn: ['tlskey'],
  }),
  tlskey: Flags.string({
    helpGroup: 'REGISTRY',
    description: "file of the client certificate's key",
    dependsOn: ['tlscert'],
  }),
  refresh: Flags.string({helpGroup: 'REGISTRY', description: 'refresh token for the authorization server'}),
  'http-dump': Flags.boolean({
    helpGroup: 'REGISTRY',
    description: 'print requests and responses, without credentials and bodies, on stderr',
  }),
  'http-trace': Flags.boolean({helpGroup: 'REGISTRY', description: 'print one line per request on stderr'}),
}

const credentials = {
  helpGroup: 'REGISTRY',
  description: 'user[:password] of the registry; the default is what docker login stored',
}

/** Credentials, where `--user` is free to mean them. */
export const userFlag = {user: Flags.string({...credentials, char: 'u', aliases: ['creds']})}

/** Credentials, where `--user` is the workload's user. */
export const credsFlag = {creds: Flags.string({...credentials, char: 'u'})}

/** Credentials of commands that may read from one registry and write to another; skopeo has the same flags. */
export const copyCredsFlags = {
  'src-creds': Flags.string({
    helpGroup: 'REGISTRY',
    description: 'user[:password] of the registry that is read, where another one is written to',
  }),
  'dest-creds': Flags.string({
    helpGroup: 'REGISTRY',
    description: 'user[:password] of the registry that is written to, where another one is read',
  }),
}

/** Where containerd keeps unpacked layers. */
export const snapshotterFlag = {
  snapshotter: Flags.string({
    description: 'with containerd, the snapshotter of unpacked layers',
    env: 'CONTAINERD_SNAPSHOTTER',
    default: 'overlayfs',
  }),
}

/** The snapshotter of lazily pulled images. */
export const lazySnapshotterFlag = {
  snapshotter: Flags.string({
    description: "the snapshotter's name in containerd",
    env: 'CONTAINERD_SNAPSHOTTER',
    default: 'stargz',
  }),
}

/** Which platforms of an image are meant. */
export const platformFlags = {
  platform: Flags.string({
    description: "os/architecture[/variant], repeatable or separated by commas (default: this machine's)",
    multiple: true,
    multipleNonGreedy: true,
    delimiter: ',',
  }),
  'all-platforms': Flags.boolean({
    // As the reference's documents call it once.
    aliases: ['all-platform'],
    description: 'all platforms of the image',
    exclusive: ['platform'],
  }),
}

/** How results are shown to people. */
export const digestFlags = {
  'no-trunc': Flags.boolean({description: 'show digests whole'}),
}

/** How work is shown while it lasts; always on stderr. */
export const progressFlags = {
  progress: Flags.option({options: ['auto', 'plain', 'none'] as const})({
    description: 'how to show progress; auto draws on a terminal and prints lines elsewhere',
    default: 'auto',
    helpValue: 'auto|plain|none',
  }),
  quiet: Flags.boolean({char: 'q', description: 'show no progress'}),
}

/** How layers become eStargz or zstd:chunked; `convert` and `optimize` have these in common. */
export const conversionFlags = {
  'estargz-compression-level': Flags.integer({
    description: 'eStargz compression level, 0 to 12',
    default: 9,
    min: 0,
    max: 12,
  }),
  'estargz-chunk-size': Flags.integer({
    description: 'eStargz chunk size in bytes (0: 4 MiB)',
    default: 0,
    min: 0,
  }),
  'estargz-min-chunk-size': Flags.integer({
    description:
      'smallest number of bytes in one gzip stream; needs stargz-snapshotter 0.13 or newer to read',
    default: 0,
    min: 0,
  }),
  'estargz-external-toc': Flags.boolean({
    description: 'put the TOCs in an image of their own, <target>-esgztoc',
  }),
  'estargz-parallelism': Flags.integer({
    description: 'accepted; all cores are used, and the output does not depend on their number',
    default: 0,
    min: 0,
  }),
  'estargz-gzip-helper': Flags.string({
    aliases: ['GH'],
    description: 'pigz, igzip or gzip; accepted, and not needed: decompression is built in',
  }),
  zstdchunked: Flags.boolean({description: 'zstd:chunked instead of eStargz; needs --oci'}),
  'zstdchunked-compression-level': Flags.integer({
    description: 'zstd:chunked compression level',
    default: 3,
    min: 1,
    max: 22,
  }),
  'zstdchunked-chunk-size': Flags.integer({
    description: 'zstd:chunked chunk size in bytes (0: 4 MiB)',
    default: 0,
    min: 0,
  }),
  'zstdchunked-dialect': Flags.option({options: ['podman', 'stargz'] as const})({
    description: 'who shall read zstd:chunked layers lazily: Podman and CRI-O, or stargz-snapshotter',
    default: 'podman',
    helpValue: 'podman|stargz',
  }),
  'max-layer-size': Flags.integer({
    description: 'largest layer that is accepted, decompressed, in bytes (default: what TMPDIR has room for)',
    min: 1,
  }),
  oci: Flags.boolean({description: 'convert Docker media types to OCI media types'}),
  format: Flags.string({
    description: "json prints the result as nerdctl's --format json does, anything else as without it",
  }),
}
