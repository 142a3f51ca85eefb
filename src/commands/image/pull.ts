import * as Flags from '@oclif/core/flags'
import {BaseCommand, word} from '../../base-command.ts'
import {platformFlags, progressFlags, registryFlags, snapshotterFlag, userFlag} from '../../cli/flags.ts'
import {platformsFrom} from '../../lib/image/platform-selection.ts'

export default class ImagePull extends BaseCommand {
  static override summary = 'Pull an image from a registry into the store'
  static override examples = [
    '<%= config.bin %> image pull docker.io/library/debian:12',
    '<%= config.bin %> image pull --all-platforms ghcr.io/owner/app:1',
  ]

  static override args = {ref: word('name of the image, with its registry')}

  static override flags = {
    ...platformFlags,
    label: Flags.string({
      description: 'label for the image, key=value',
      multiple: true,
      multipleNonGreedy: true,
    }),
    ...snapshotterFlag,
    unpack: Flags.boolean({
      description: 'with containerd, unpack the layers into snapshots, ready to run',
      default: true,
      allowNo: true,
    }),
    ...progressFlags,
    ...registryFlags,
    ...userFlag,
  }

  async run(): Promise<{name: string; digest: string; copiedBytes: number; presentBytes: number}> {
    const {args, flags} = await this.parse(ImagePull)
    const platforms = platformsFrom(flags)
    const {parseLabels} = await import('../../cli/label-arguments.ts')
    const labels = parseLabels(flags.label ?? [])
    const {resolveAhead} = await import('../../cli/resolve-ahead.ts')
    const {copyImage} = await import('../../lib/copy/copy-image.ts')
    const {labelledTarget} = await import('../../lib/copy/distribution-source.ts')
    const ref = args.ref.replace(/^docker:\/\//, '')
    await using session = await this.openSession({...flags, creds: flags.user})
    const {signal} = session
    await using named = await session.source({transport: 'docker', reference: ref})
    const source = await resolveAhead(named, {signal})
    await using place = await session.target({transport: 'store', name: ref})
    const target = labelledTarget(place, ref)
    const store = await session.store()
    const {isContainerdStore} = await import('../../lib/containerd/store.ts')
    const {root, ...bytes} = await session.watch(async onProgress => {
      const options = {platforms, index: 'sparse', onProgress, signal} as const
      if (!flags.unpack || !isContainerdStore(store)) return copyImage(source, target, options)
      const {copyAndUnpack} = await import('../../lib/pull/copy-and-unpack.ts')
      return copyAndUnpack(source, target, {...options, store, snapshotter: flags.snapshotter})
    })
    if (Object.keys(labels).length > 0) await store.images.put(target.name, root, {labels, signal})
    this.log(root.digest)
    return {name: target.name, digest: root.digest, ...bytes}
  }
}
