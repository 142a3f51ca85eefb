import * as Flags from '@oclif/core/flags'
import {BaseCommand, word, words} from '../../base-command.ts'
import {CodedError} from '../../lib/errors/coded-error.ts'

export default class ImageTag extends BaseCommand {
  static override summary = 'Give an image of the store further names'

  static override args = {source: word('name of an image'), target: words('new names')}

  static override flags = {
    force: Flags.boolean({description: 'take names that other images have'}),
  }

  async run(): Promise<{digest: string; names: readonly string[]}> {
    const {args, flags} = await this.parse(ImageTag)
    const {findImage, newImageName} = await import('../../lib/transport/store-image.ts')
    await using session = await this.openSession(flags)
    const store = await session.store()
    await using _lease = await store.lease(session)
    const {target, labels} = await findImage(store, args.source, session)
    const names = args.target.map(name => newImageName(store, name))
    for (const name of names) {
      if (!flags.force && (await store.images.get(name, session))) {
        throw new CodedError(
          'already-exists',
          `Cannot name an image "${name}": there is one already; --force takes the name`,
        )
      }
    }
    for (const name of names) {
      await store.images.put(name, target, {labels, signal: session.signal})
      this.log(name)
    }
    return {digest: target.digest, names}
  }
}
