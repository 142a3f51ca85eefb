import * as Flags from '@oclif/core/flags'
import {BaseCommand, word} from '../../base-command.ts'
import {platformFlags, progressFlags, registryFlags, userFlag} from '../../cli/flags.ts'
import {platformsFrom} from '../../lib/image/platform-selection.ts'

interface ProfilePullReport {
  readonly name: string
  readonly files: number
}

export default class ProfilePull extends BaseCommand {
  static override summary = 'Get the profiles of an image from its registry, merged into one'
  static override description =
    `Reads all profiles that refer to the image's manifests, and writes what they say together: what any of them reads first
is first. Artifacts of other images, and those that are no profiles, are refused.`
  static override examples = [
    '<%= config.bin %> profile pull -o app.profile registry.example.com/app:1',
    '<%= config.bin %> profile pull registry.example.com/app:1 | head',
  ]

  static override args = {image: word('name of the image, with its registry')}

  static override flags = {
    output: Flags.string({
      char: 'o',
      helpValue: 'FILE',
      description: 'where the profile goes; without, to standard output',
    }),
    ...platformFlags,
    ...progressFlags,
    ...registryFlags,
    ...userFlag,
  }

  async run(): Promise<ProfilePullReport> {
    const {args, flags} = await this.parse(ProfilePull)
    const {openProfileRepository} = await import('../../cli/profile-repository.ts')
    const {pullProfiles} = await import('../../lib/profile-exchange/profile-exchange.ts')
    const {encodeProfile} = await import('../../lib/record/profile-file.ts')
    const {readImageTree} = await import('../../lib/image/image-tree.ts')
    const {tagOrDigestOf} = await import('../../lib/oci/reference.ts')
    await this.keepOffStdout(flags.output === undefined ? [] : [flags.output])
    await using session = await this.openSession({...flags, creds: flags.user})
    const {signal} = session
    const {repository, reference} = await openProfileRepository(session, args.image, 'pull')
    const root = await repository.resolve(tagOrDigestOf(reference), {signal})
    const {manifests} = await readImageTree(repository.content, root, platformsFrom(flags), {signal})
    const profile = await pullProfiles(repository, manifests, {signal})
    const bytes = encodeProfile(profile)
    if (flags.output === undefined) this.log(Buffer.from(bytes).toString().trimEnd())
    else {
      const {writeOutput} = await import('../../lib/io/output.ts')
      await writeOutput(flags.output, bytes, {signal})
    }
    return {name: args.image, files: profile.length}
  }
}
