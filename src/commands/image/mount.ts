import * as Flags from '@oclif/core/flags'
import {BaseCommand, word} from '../../base-command.ts'
import {snapshotterFlag} from '../../cli/flags.ts'

export default class ImageMount extends BaseCommand {
  static override summary = 'Mount an image of containerd on a directory'
  static override description =
    'The snapshot that is mounted is named like the directory, and kept until `image unmount --rm`.'
  static override examples = ['<%= config.bin %> image mount docker.io/library/debian:12 /mnt']

  static override args = {ref: word('name of the image'), target: word('directory')}

  static override flags = {
    rw: Flags.boolean({description: 'mount it writable'}),
    platform: Flags.string({description: "os/architecture[/variant] (default: this machine's)"}),
    ...snapshotterFlag,
  }

  async run(): Promise<{target: string}> {
    const {args, flags} = await this.parse(ImageMount)
    const {resolve} = await import('node:path')
    const {containerdStore} = await import('../../cli/containerd.ts')
    const {mountImage} = await import('../../lib/mount-image/mount-image.ts')
    const {hostPlatform, parsePlatform} = await import('../../lib/oci/platform.ts')
    const {findImage} = await import('../../lib/transport/store-image.ts')
    await using session = await this.openSession(flags)
    const store = await containerdStore(session, `mount "${args.ref}"`)
    const target = resolve(args.target)
    await mountImage(store, await findImage(store, args.ref, session), {
      target,
      platform: flags.platform ? parsePlatform(flags.platform) : hostPlatform(),
      snapshotter: flags.snapshotter,
      writable: flags.rw,
      signal: session.signal,
    })
    this.log(target)
    return {target}
  }
}
