import * as Args from '@oclif/core/args'
import * as Flags from '@oclif/core/flags'
import {BaseCommand} from '../../base-command.ts'
import {snapshotterFlag} from '../../cli/flags.ts'
import type {CheckedImage} from '../../lib/check/check-image.ts'

export default class ImageCheck extends BaseCommand {
  static override summary = 'Check which images of containerd are complete, and unpacked'
  static override description =
    "What is checked is what this machine's platform needs. Layers that a snapshotter pulls lazily are not in the content store: such images are incomplete, and unpacked."

  static override args = {
    filter: Args.string({
      description: 'check only images whose name contains one of these',
      multiple: true,
      ignoreStdin: true,
    }),
  }

  static override flags = {
    quiet: Flags.boolean({char: 'q', description: 'print only the names of complete and unpacked images'}),
    ...snapshotterFlag,
  }

  async run(): Promise<readonly CheckedImage[]> {
    const {args, flags} = await this.parse(ImageCheck)
    const {containerdStore} = await import('../../cli/containerd.ts')
    const {checkImage} = await import('../../lib/check/check-image.ts')
    const {hostPlatform} = await import('../../lib/oci/platform.ts')
    await using session = await this.openSession(flags)
    const store = await containerdStore(session, 'check images')
    const {signal} = session
    const filters: readonly string[] = [args.filter ?? []].flat()
    const images: CheckedImage[] = []
    for (const image of await store.images.list({signal})) {
      if (filters.length > 0 && !filters.some(part => image.name.includes(part))) continue
      const {snapshotter} = flags
      images.push(await checkImage(store, image, hostPlatform(), {snapshotter, signal}))
    }
    if (flags.quiet) {
      for (const {name, status, unpacked} of images) if (status === 'complete' && unpacked) this.log(name)
    } else {
      await this.print(images)
    }
    return images
  }

  /** The columns of `ctr images check`. */
  private async print(images: readonly CheckedImage[]): Promise<void> {
    const {formatTable} = await import('../../cli/table.ts')
    const {formatBytes} = await import('../../cli/units.ts')
    const rows = images.map(({name, mediaType, digest, status, present, required, unpacked}) => [
      name,
      mediaType,
      digest,
      `${status} (${present.count}/${required.count})`,
      `${formatBytes(present.bytes)}/${formatBytes(required.bytes)}`,
      String(unpacked),
    ])
    this.log(formatTable(['REF', 'TYPE', 'DIGEST', 'STATUS', 'SIZE', 'UNPACKED'], rows))
  }
}
