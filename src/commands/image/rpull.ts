import * as Flags from '@oclif/core/flags'
import {BaseCommand, word} from '../../base-command.ts'
import {platformFlags, progressFlags, registryFlags, userFlag} from '../../cli/flags.ts'
import type {LazyPullReport} from '../../cli/lazy-pulling.ts'
import {platformsFrom} from '../../cli/platforms.ts'

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

export default class ImageRpull extends BaseCommand {
  static override summary = 'Pull an image lazily: its layers are mounted, and fetched while they are used'
  static override description =
    `Fetches manifests and config into containerd, and has a remote snapshotter mount the layers. Layers that it cannot mount
are fetched and unpacked as image pull does; which ones, and why, is said on stderr. Run the image with the same
snapshotter.`
  static override examples = [
    '<%= config.bin %> image rpull ghcr.io/owner/app:1-esgz',
    '<%= config.bin %> run --rm --snapshotter stargz ghcr.io/owner/app:1-esgz app1',
  ]

  static override args = {ref: word('name of the image, with its registry')}

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
    'use-containerd-labels': Flags.boolean({
      description: "accepted; containerd's labels are always sent, along with those of rpull",
    }),
    ...progressFlags,
    ...registryFlags,
    ...userFlag,
  }

  async run(): Promise<LazyPullReport> {
    const {args, flags} = await this.parse(ImageRpull)
    const platforms = platformsFrom(flags)
    const {parseLabels} = await import('../../cli/labels.ts')
    const labels = parseLabels(flags.label ?? [])
    const {noSnapshots, pullIntoSnapshots} = await import('../../cli/lazy-pulling.ts')
    if (flags.store === 'local') throw noSnapshots(args.ref)
    await using session = await this.openSession({...flags, creds: flags.user})
    const ref = args.ref.replace(/^docker:\/\//, '')
    return await pullIntoSnapshots(session, ref, {
      platforms,
      labels,
      snapshotter: flags.snapshotter,
      skipContentVerify: flags['skip-content-verify'],
      registryFlags: REGISTRY_FLAGS.filter(name => flags[name]),
      print: line => this.log(line),
    })
  }
}
