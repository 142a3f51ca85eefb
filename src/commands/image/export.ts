import * as Flags from '@oclif/core/flags'
import {BaseCommand, word, words} from '../../base-command.ts'
import {platformFlags, progressFlags} from '../../cli/flags.ts'

export default class ImageExport extends BaseCommand {
  static override summary = 'Write images of the store to an archive'
  static override description =
    `An OCI archive, with a Docker manifest.json unless told otherwise, so that docker, podman and ctr load it. What the
store has of an image is exported; --platform picks platforms of an index.`
  static override examples = [
    '<%= config.bin %> image export app.tar app:esgz',
    '<%= config.bin %> image export - app:esgz | ssh host ctr-remote image import -',
  ]

  static override args = {out: word('file to write, or - for stdout'), image: words('names of images')}

  static override flags = {
    'skip-manifest-json': Flags.boolean({description: 'leave out the manifest.json for docker load'}),
    ...platformFlags,
    ...progressFlags,
  }

  async run(): Promise<{images: readonly {name: string; digest: string}[]}> {
    const {args, flags} = await this.parse(ImageExport)
    const {presentPlatforms} = await import('../../lib/copy/present-platforms.ts')
    const {createArchive} = await import('../../lib/archive/create-archive.ts')
    const {copyImage} = await import('../../lib/copy/copy-image.ts')
    const {findImage} = await import('../../lib/transport/store-image.ts')
    await using session = await this.openSession(flags)
    const {signal} = session
    const store = await session.store()
    const out = args.out === '-' ? '/dev/stdout' : args.out
    await this.keepOffStdout([out])
    await using archive = await createArchive(out, {skipManifestJson: flags['skip-manifest-json']})
    const images = await session.watch(async onProgress => {
      const exported: {name: string; digest: string}[] = []
      for (const image of args.image) {
        const {name} = await findImage(store, image, session)
        await using source = await session.source({transport: 'store', name})
        const platforms = await presentPlatforms(source, flags, session)
        const options = {platforms, index: 'reduced', onProgress, signal} as const
        const {root} = await copyImage(source, archive.target(name), options)
        exported.push({name, digest: root.digest})
      }
      await archive.finish(session)
      return exported
    })
    return {images}
  }
}
