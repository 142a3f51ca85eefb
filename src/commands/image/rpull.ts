import * as Flags from '@oclif/core/flags'
import {BaseCommand, word} from '../../base-command.ts'
import {layerStoreFlags, platformFlags, progressFlags, registryFlags, userFlag} from '../../cli/flags.ts'
import type {LazyPullReport} from '../../cli/lazy-pulling.ts'
import {CodedError} from '../../lib/errors/coded-error.ts'
import {platformsFrom} from '../../lib/image/platform-selection.ts'
import {parseCid} from '../../lib/ipfs/cid.ts'
import {formatPlatform} from '../../lib/oci/platform.ts'

/** How this process reaches a registry is not how the snapshotter does. */
const REGISTRY_FLAGS = [
  'user',
  'refresh',
  'plain-http',
  'skip-verify',
  'hosts-dir',
  'tlscacert',
  'tlscert',
] as const

function noLayerStore(ref: string): CodedError {
  return new CodedError(
    'unsupported',
    `Cannot pull "${ref}" with --ipfs into --store podman, which names images by their registries; use containerd`,
  )
}

export default class ImageRpull extends BaseCommand {
  static override summary = 'Pull an image lazily: its layers are mounted, and fetched while they are used'
  static override description =
    `Fetches manifests and config into containerd, and has a remote snapshotter mount the layers. Layers that it cannot mount
are fetched and unpacked as image pull does; which ones, and why, is said on stderr. Run the image with the same
snapshotter.
With --ipfs, REF is the CID that image ipfs-push printed, and manifests and layers come from the IPFS node of this user;
the snapshotter must be configured for it (ipfs = true).
With --store podman the layers are mounted by stargz-store, and Podman, Buildah and CRI-O see the image.`
  static override examples = [
    '<%= config.bin %> image rpull ghcr.io/owner/app:1-esgz',
    '<%= config.bin %> run --rm --snapshotter stargz ghcr.io/owner/app:1-esgz app1',
    '<%= config.bin %> image rpull --ipfs bafkreie7754qk7fl56ebauawdgfuqqa3kdd7sotvuhsm6wbz3qin6ssw3a',
    '<%= config.bin %> image rpull --store podman ghcr.io/owner/app:1-esgz',
  ]

  static override args = {ref: word('name of the image, with its registry; with --ipfs a CID')}

  static override flags = {
    ...platformFlags,
    label: Flags.string({
      description: 'label for the image, key=value',
      multiple: true,
      multipleNonGreedy: true,
    }),
    snapshotter: Flags.string({
      description: 'the remote snapshotter',
      env: 'CONTAINERD_SNAPSHOTTER',
      default: 'stargz',
    }),
    'skip-content-verify': Flags.boolean({
      description: 'have layers mounted that cannot be verified; the snapshotter must allow it',
    }),
    ipfs: Flags.boolean({description: 'the image is in IPFS: REF is its CID'}),
    'use-containerd-labels': Flags.boolean({
      description: "accepted; containerd's labels are always sent, along with those of rpull",
    }),
    ...layerStoreFlags,
    ...progressFlags,
    ...registryFlags,
    ...userFlag,
  }

  async run(): Promise<LazyPullReport> {
    const {args, flags} = await this.parse(ImageRpull)
    const platforms = platformsFrom(flags)
    if (flags.store === 'podman') {
      if (flags.ipfs) throw noLayerStore(args.ref)
      const {pullIntoPodman} = await import('../../cli/podman-store.ts')
      await using session = await this.openSession(flags)
      const [address, creds] = [flags['store-address'], flags.user]
      const wanted = platforms === 'all' ? [] : platforms.map(formatPlatform)
      const pulled = await pullIntoPodman(session, args.ref, {address, creds, platforms: wanted})
      this.log(pulled.name)
      return pulled
    }
    const {parseLabels} = await import('../../cli/label-arguments.ts')
    const labels = parseLabels(flags.label ?? [])
    const {noSnapshots, pullIntoSnapshots} = await import('../../cli/lazy-pulling.ts')
    if (flags.store === 'local') throw noSnapshots(args.ref)
    await using session = await this.openSession({...flags, creds: flags.user})
    const ref = flags.ipfs
      ? parseCid(args.ref.replace(/^ipfs:\/\//, ''))
      : args.ref.replace(/^docker:\/\//, '')
    return await pullIntoSnapshots(session, ref, {
      from: flags.ipfs ? 'ipfs' : 'registry',
      platforms,
      labels,
      snapshotter: flags.snapshotter,
      skipContentVerify: flags['skip-content-verify'],
      registryFlags: REGISTRY_FLAGS.filter(name => flags[name]),
      print: line => this.log(line),
    })
  }
}
