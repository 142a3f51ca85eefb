import * as Flags from '@oclif/core/flags'
import {BaseCommand, word} from '../../base-command.ts'
import {snapshotterFlag} from '../../cli/flags.ts'

export default class ImageUnmount extends BaseCommand {
  static override summary = 'Unmount an image that `image mount` has mounted'

  static override args = {target: word('directory')}

  static override flags = {
    rm: Flags.boolean({description: 'remove the snapshot too, with what was written to it'}),
    ...snapshotterFlag,
  }

  async run(): Promise<{target: string}> {
    const {args, flags} = await this.parse(ImageUnmount)
    const {resolve} = await import('node:path')
    const {containerdStore} = await import('../../cli/containerd.ts')
    const {unmountImage} = await import('../../lib/mount-image/mount-image.ts')
    const target = resolve(args.target)
    await using session = await this.openSession(flags)
    const store = await containerdStore(session, `unmount "${target}"`)
    await unmountImage(store, target, {remove: flags.rm, snapshotter: flags.snapshotter})
    this.log(target)
    return {target}
  }
}
