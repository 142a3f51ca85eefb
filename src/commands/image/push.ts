import * as Flags from '@oclif/core/flags'
import {BaseCommand, optionalWord, word} from '../../base-command.ts'
import {platformFlags, progressFlags, registryFlags, userFlag} from '../../cli/flags.ts'

interface PushReport {
  readonly name: string
  readonly digest: string
  /** Names of what was pushed beside the image. */
  readonly extraImages: readonly string[]
  readonly copiedBytes: number
  readonly presentBytes: number
}

export default class ImagePush extends BaseCommand {
  static override summary = 'Push an image of the store to a registry'
  static override description =
    'Everything of the image that is in the store is pushed; --platform picks platforms of an index.'
  static override examples = [
    '<%= config.bin %> image push registry.example.com/app:esgz',
    '<%= config.bin %> image push registry.example.com/app:1 app:local',
    '<%= config.bin %> image push --with-toc registry.example.com/app:esgz',
  ]

  static override args = {
    remote: word('name of the image, with its registry'),
    local: optionalWord('name of the image in the store, where it differs'),
  }

  static override flags = {
    'with-toc': Flags.boolean({
      description: 'push the image of external TOCs along, before the image that needs it',
    }),
    ...platformFlags,
    ...progressFlags,
    ...registryFlags,
    ...userFlag,
  }

  async run(): Promise<PushReport> {
    const {args, flags} = await this.parse(ImagePush)
    const remote = args.remote.replace(/^docker:\/\//, '')
    const {presentPlatforms, sourcesOf} = await import('../../lib/copy/present-platforms.ts')
    const {copyImage} = await import('../../lib/copy/copy-image.ts')
    const {copyTocsBeside} = await import('../../lib/conversion/conversion-target.ts')
    await using session = await this.openSession({...flags, creds: flags.user})
    await using source = await session.source(args.local ?? remote)
    const platforms = await presentPlatforms(source, flags, session)
    await session.mountFrom(await sourcesOf(source, remote, session))
    await using target = await session.target({transport: 'docker', reference: remote})
    const {signal} = session
    const {extraImages, root, ...bytes} = await session.watch(async onProgress => {
      const extraImages = flags['with-toc']
        ? [await copyTocsBeside(session, args.local ?? remote, remote, onProgress)]
        : []
      const copied = await copyImage(source, target, {platforms, index: 'reduced', onProgress, signal})
      return {extraImages, ...copied}
    })
    for (const name of extraImages) this.log(`extra image: ${name}`)
    this.log(root.digest)
    return {name: remote, digest: root.digest, extraImages, ...bytes}
  }
}
