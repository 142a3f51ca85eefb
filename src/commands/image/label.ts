import * as Flags from '@oclif/core/flags'
import {BaseCommand, word, words} from '../../base-command.ts'

export default class ImageLabel extends BaseCommand {
  static override summary = 'Set and remove labels of an image'
  static override description =
    'A label with an empty value (key=) is removed. The labels that remain are printed.'
  static override examples = ['<%= config.bin %> image label docker.io/library/debian:12 team=web old=']

  static override args = {ref: word('name of the image'), label: words('labels, key=value')}

  static override flags = {
    'replace-all': Flags.boolean({char: 'r', description: 'remove all other labels'}),
  }

  async run(): Promise<Readonly<Record<string, string>>> {
    const {args, flags} = await this.parse(ImageLabel)
    const {parseLabels} = await import('../../cli/label-arguments.ts')
    const {findImage} = await import('../../lib/transport/store-image.ts')
    const changes = parseLabels(args.label)
    await using session = await this.openSession(flags)
    const store = await session.store()
    const {signal} = session
    const {name, target, labels} = await findImage(store, args.ref, session)
    const merged = Object.entries({...(flags['replace-all'] ? {} : labels), ...changes})
    const kept = Object.fromEntries(merged.filter(([, value]) => value !== ''))
    await store.images.put(name, target, {labels: kept, signal})
    const pairs = Object.entries(kept).map(([key, value]) => `${key}=${value}`)
    this.log(pairs.sort().join(','))
    return kept
  }
}
