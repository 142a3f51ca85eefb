import {BaseCommand, optionalWord, word} from '../../base-command.ts'
import {platformFlags, progressFlags, registryFlags, userFlag} from '../../cli/flags.ts'

export default class ImagePush extends BaseCommand {
  static override summary = 'Push an image of the store to a registry'
  static override description =
    'Everything of the image that is in the store is pushed; --platform picks platforms of an index.'
  static override examples = [
    '<%= config.bin %> image push registry.example.com/app:esgz',
    '<%= config.bin %> image push registry.example.com/app:1 app:local',
  ]

  static override args = {
    remote: word('name of the image, with its registry'),
    local: optionalWord('name of the image in the store, where it differs'),
  }

  static override flags = {...platformFlags, ...progressFlags, ...registryFlags, ...userFlag}

  async run(): Promise<{name: string; digest: string; copiedBytes: number; presentBytes: number}> {
    const {args, flags} = await this.parse(ImagePush)
    const remote = args.remote.replace(/^docker:\/\//, '')
    const {presentPlatforms, sourcesOf} = await import('../../cli/present-platforms.ts')
    const {copyImage} = await import('../../lib/convert/copy-image.ts')
    await using session = await this.openSession({...flags, creds: flags.user})
    await using source = await session.source(args.local ?? remote)
    const platforms = await presentPlatforms(source, flags, session)
    await session.mountFrom(await sourcesOf(source, remote, session))
    await using target = await session.target({transport: 'docker', reference: remote})
    const {root, ...bytes} = await session.watch(onProgress =>
      copyImage(source, target, {platforms, index: 'reduced', onProgress, signal: session.signal}),
    )
    this.log(root.digest)
    return {name: remote, digest: root.digest, ...bytes}
  }
}
