import * as Args from '@oclif/core/args'
import * as Flags from '@oclif/core/flags'
import {BaseCommand} from '../../base-command.ts'
import {layerStoreFlags} from '../../cli/flags.ts'
import type {ListedImage as StoredImage} from '../../lib/layer-store-client/layer-store-client.ts'

/** One image as `--json` lists it. */
interface ListedImage {
  readonly name: string
  readonly mediaType: string
  readonly digest: string
  readonly size: number
  readonly platforms: readonly string[]
  readonly labels: Readonly<Record<string, string>>
}

export default class ImageLs extends BaseCommand {
  static override summary = 'List the images of the store'
  static override aliases = ['image:list']
  static override examples = ['<%= config.bin %> image ls', '<%= config.bin %> image ls -q debian']

  static override args = {
    filter: Args.string({
      description: 'list only images whose name contains one of these',
      multiple: true,
      ignoreStdin: true,
    }),
  }

  static override flags = {
    ...layerStoreFlags,
    quiet: Flags.boolean({char: 'q', description: 'print only the names'}),
  }

  async run(): Promise<readonly ListedImage[] | readonly StoredImage[]> {
    const {args, flags} = await this.parse(ImageLs)
    await using session = await this.openSession(flags)
    const filters: readonly string[] = [args.filter ?? []].flat()
    if (flags.store === 'podman') {
      const {formatStoredImages, listInPodman} = await import('../../cli/podman-store.ts')
      const images = await listInPodman(session, flags['store-address'], filters)
      if (flags.quiet) for (const {names} of images) for (const name of names) this.log(name)
      else this.log(formatStoredImages(images))
      return images
    }
    const store = await session.store()
    const records = (await store.images.list(session)).filter(
      ({name}) => filters.length === 0 || filters.some(part => name.includes(part)),
    )
    if (flags.quiet) {
      for (const {name} of records) this.log(name)
      if (!this.jsonEnabled()) return []
    }
    const {platformsOf, sizeOf, summarizeImage} = await import('../../lib/image/image-summary.ts')
    const images: ListedImage[] = []
    for (const {name, target, labels} of records) {
      const summaries = await summarizeImage(store.content, target, session)
      images.push({
        name,
        mediaType: target.mediaType,
        digest: target.digest,
        size: sizeOf(target, summaries),
        platforms: platformsOf(summaries),
        labels,
      })
    }
    if (!flags.quiet) await this.print(images)
    return images
  }

  /** The columns of `ctr images ls`. */
  private async print(images: readonly ListedImage[]): Promise<void> {
    const {formatTable} = await import('../../cli/table.ts')
    const {formatBytes} = await import('../../cli/units.ts')
    const rows = images.map(({name, mediaType, digest, size, platforms, labels}) => {
      const pairs = Object.entries(labels).map(([key, value]) => `${key}=${value}`)
      return [
        name,
        mediaType,
        digest,
        formatBytes(size),
        platforms.join(',') || '-',
        pairs.sort().join(',') || '-',
      ]
    })
    this.log(formatTable(['REF', 'TYPE', 'DIGEST', 'SIZE', 'PLATFORMS', 'LABELS'], rows))
  }
}
