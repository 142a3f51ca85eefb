import {BaseCommand, word} from '../../base-command.ts'
import {platformFlags, progressFlags, registryFlags, userFlag} from '../../cli/flags.ts'
import {platformsFrom} from '../../lib/image/platform-selection.ts'
import type {StoredProfile} from '../../lib/profile-exchange/profile-exchange.ts'

interface ProfilePushReport {
  readonly name: string
  readonly profiles: readonly StoredProfile[]
}

export default class ProfilePush extends BaseCommand {
  static override summary = 'Store a profile in a registry, beside the image that it is of'
  static override description =
    `The profile becomes an OCI artifact that refers to the image's manifest, in the same repository, where profile pull and
image optimize --profile-from-registry find it. The profile of another image is refused. Several profiles of one image
stay beside each other and are merged when they are used. The digest of the artifact is printed.`
  static override examples = [
    '<%= config.bin %> profile push app.profile registry.example.com/app:1',
    '<%= config.bin %> profile push --plain-http app.profile localhost:5000/app:1',
  ]

  static override args = {
    file: word('profile of optimize --profile-out, or a record'),
    image: word('name of the image, with its registry'),
  }

  static override flags = {...platformFlags, ...progressFlags, ...registryFlags, ...userFlag}

  async run(): Promise<ProfilePushReport> {
    const {args, flags} = await this.parse(ProfilePush)
    const {openProfileRepository} = await import('../../cli/profile-repository.ts')
    const {pushProfile} = await import('../../lib/profile-exchange/profile-exchange.ts')
    const {readProfiles} = await import('../../lib/conversion/profiles.ts')
    const {readImageTree} = await import('../../lib/image/image-tree.ts')
    const {tagOrDigestOf} = await import('../../lib/oci/reference.ts')
    const profile = await readProfiles([args.file])
    await using session = await this.openSession({...flags, creds: flags.user})
    const {signal} = session
    const {repository, reference} = await openProfileRepository(session, args.image, 'push')
    const root = await repository.resolve(tagOrDigestOf(reference), {signal})
    const {manifests} = await readImageTree(repository.content, root, platformsFrom(flags), {signal})
    const profiles = await pushProfile(repository, manifests, profile, {signal})
    for (const {artifact} of profiles) this.log(artifact)
    return {name: args.image, profiles}
  }
}
