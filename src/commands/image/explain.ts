import * as Flags from '@oclif/core/flags'
import {BaseCommand, word} from '../../base-command.ts'
import type {ExplainReport} from '../../cli/explain-report.ts'
import {platformFlags, progressFlags, registryFlags, userFlag} from '../../cli/flags.ts'
import {platformsFrom} from '../../lib/image/platform-selection.ts'

export default class ImageExplain extends BaseCommand {
  static override summary = 'Show what a lazy start of an image fetches, and what could be better'
  static override description =
    `Reads the image's documents and tables of contents, wherever it is, and says what is fetched before a container starts: by
layer and file, in what order, how much of the image that is, and what it costs on a link. With -o it writes a page that needs
nothing else and runs no script. With --profile it says, too, what of that the workload reads, and what it reads besides;
with --against it sets another image beside this one, such as the one that this was made of.`
  static override examples = [
    '<%= config.bin %> image explain docker://registry.example.com/app:esgz',
    '<%= config.bin %> image explain -o report.html --mbit 100 --delay 20 app:esgz',
    '<%= config.bin %> image explain --against app:old-esgz --profile app.profile app:esgz',
  ]

  static override args = {image: word('name or place of an image')}

  static override flags = {
    output: Flags.string({char: 'o', helpValue: 'FILE', description: 'write the report as an HTML page'}),
    profile: Flags.string({
      multiple: true,
      multipleNonGreedy: true,
      helpValue: 'FILE',
      description: 'profile or record, or several: compare what is fetched with what they read',
    }),
    against: Flags.string({helpValue: 'IMAGE', description: 'set this image beside the other'}),
    delay: Flags.integer({description: 'of the link, one way, milliseconds', default: 10, min: 0}),
    mbit: Flags.integer({description: 'of the link, megabits per second', default: 200, min: 1}),
    ...platformFlags,
    ...progressFlags,
    ...registryFlags,
    ...userFlag,
  }

  async run(): Promise<ExplainReport> {
    const {args, flags} = await this.parse(ImageExplain)
    const {explainImage} = await import('../../lib/explain/explain-image.ts')
    const {describeExplanation, linesOfExplanation} = await import('../../cli/explain-report.ts')
    const {openTocsBeside} = await import('../../lib/conversion/conversion-target.ts')
    const {readProfiles} = await import('../../lib/conversion/profiles.ts')
    const platforms = platformsFrom(flags)
    const link = {delayMs: flags.delay, mbit: flags.mbit}
    await this.keepOffStdout(flags.output === undefined ? [] : [flags.output])
    await using session = await this.openSession({...flags, creds: flags.user})
    const {signal} = session
    const profile = flags.profile && (await readProfiles(flags.profile))
    const explain = async (name: string): Promise<ExplainReport> => {
      await using source = await session.source(name)
      await using beside = await openTocsBeside(session, name)
      const image = await explainImage(source, {platforms, tocs: beside.tocs, profile, signal})
      return describeExplanation(source.name, image, link)
    }
    const own = await explain(args.image)
    const report = flags.against === undefined ? own : {...own, against: await explain(flags.against)}
    if (flags.output !== undefined) {
      const {explanationPage} = await import('../../cli/explain-page.ts')
      const {writeOutput} = await import('../../lib/io/output.ts')
      await writeOutput(flags.output, Buffer.from(explanationPage(report)), {signal})
    }
    for (const line of linesOfExplanation(report)) this.log(line)
    return report
  }
}
