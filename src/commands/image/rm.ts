import * as Flags from '@oclif/core/flags'
import {BaseCommand, words} from '../../base-command.ts'

export default class ImageRm extends BaseCommand {
  static override summary = 'Remove images from the store'
  static override description =
    'The names go at once. What no other image needs is collected later, or before the command ends with --sync.'
  static override aliases = ['image:remove', 'image:delete', 'image:del']

  static override args = {ref: words('names of images')}

  static override flags = {
    sync: Flags.boolean({description: 'collect everything that is no longer needed before the command ends'}),
  }

  async run(): Promise<{removed: readonly string[]}> {
    const {args, flags} = await this.parse(ImageRm)
    const {findImage} = await import('../../lib/transport/store-image.ts')
    await using session = await this.openSession(flags)
    const store = await session.store()
    const removed: string[] = []
    for (const [index, ref] of args.ref.entries()) {
      const {name} = await findImage(store, ref, session)
      // Collecting once is enough.
      const sync = flags.sync && index === args.ref.length - 1
      await store.images.remove(name, {sync, signal: session.signal})
      removed.push(name)
      this.log(name)
    }
    return {removed}
  }
}
