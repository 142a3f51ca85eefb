import {BaseCommand, word} from '../../base-command.ts'
import {digestFlags, registryFlags, userFlag} from '../../cli/flags.ts'
import type {Descriptor} from '../../lib/oci/descriptor.ts'

/** One manifest as `--json` shows it; `config` and `layers` are missing when the store does not have it. */
interface InspectedManifest {
  readonly descriptor: Descriptor
  readonly platform: string | undefined
  readonly config?: Descriptor
  readonly layers?: readonly Descriptor[]
}

export default class ImageInspect extends BaseCommand {
  static override summary = 'Show what an image is made of'
  static override examples = [
    '<%= config.bin %> image inspect app:esgz',
    '<%= config.bin %> image inspect --json docker://registry.example.com/app:esgz',
  ]

  static override args = {image: word('name or location of an image')}
  static override flags = {...digestFlags, ...registryFlags, ...userFlag}

  async run(): Promise<{name: string; target: Descriptor; manifests: readonly InspectedManifest[]}> {
    const {args, flags} = await this.parse(ImageInspect)
    const {summarizeImage} = await import('../../lib/image/image-summary.ts')
    const {drawImage} = await import('../../cli/image-drawing.ts')
    await using session = await this.openSession({...flags, creds: flags.user})
    await using source = await session.source(args.image)
    const target = await source.resolve(session)
    const summaries = await summarizeImage(source.content, target, session)
    this.log(drawImage(source.name, target, summaries, {whole: flags['no-trunc']}))
    const manifests = summaries.map(({descriptor, platform, manifest}) => ({
      descriptor,
      platform,
      ...(manifest ? {config: manifest.config, layers: manifest.layers} : {}),
    }))
    return {name: source.name, target, manifests}
  }
}
