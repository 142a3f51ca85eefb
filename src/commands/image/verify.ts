import {tmpdir} from 'node:os'
import * as Flags from '@oclif/core/flags'
import {BaseCommand, word} from '../../base-command.ts'
import {digestFlags, platformFlags, progressFlags, registryFlags, userFlag} from '../../cli/flags.ts'
import type {Paint, VerificationReport} from '../../cli/verification-report.ts'
import {platformsFrom} from '../../lib/image/platform-selection.ts'

export default class ImageVerify extends BaseCommand {
  static override summary = 'Check every byte of a lazily pullable image'
  static override description =
    `Checks footers, TOC digests, every chunk and file, landmarks, whiteouts and DiffIDs of all layers, wherever the image
is, and says what is wrong with which layer. With --against it says, too, in what any layer unpacks to something else than
in the image which this one was made of. The exit code is 1 when something is wrong.`
  static override examples = [
    '<%= config.bin %> image verify app:esgz',
    '<%= config.bin %> image verify docker://registry.example.com/app:esgz',
    '<%= config.bin %> image verify --against app:latest app:esgz',
  ]

  static override args = {image: word('name or location of an image')}
  static override flags = {
    against: Flags.string({
      helpValue: 'IMAGE',
      description:
        'also unpack every layer, and compare it with that of the image which this one was made of',
    }),
    ...platformFlags,
    ...digestFlags,
    ...progressFlags,
    ...registryFlags,
    ...userFlag,
  }

  async run(): Promise<VerificationReport> {
    const {args, flags} = await this.parse(ImageVerify)
    const {createBulkCodec} = await import('../../lib/native/bulk-codec.ts')
    const {verifyImage} = await import('../../lib/verify/verify-image.ts')
    const {openTocsBeside} = await import('../../lib/conversion/conversion-target.ts')
    const {describeVerification, linesOfVerification} = await import('../../cli/verification-report.ts')
    const platforms = platformsFrom(flags)
    await using session = await this.openSession({...flags, creds: flags.user})
    await using source = await session.source(args.image)
    await using beside = await openTocsBeside(session, args.image)
    await using against = flags.against === undefined ? undefined : await session.source(flags.against)
    const {signal} = session
    const image = await session.watch(onProgress =>
      verifyImage(source, {
        codec: createBulkCodec(),
        platforms,
        tocs: beside.tocs,
        against: against && {source: against, temporaryDirectory: tmpdir()},
        onProgress,
        signal,
      }),
    )
    const report = describeVerification(source.name, image)
    const paint = process.stdout.isTTY && !process.env.NO_COLOR ? await verdictColours() : undefined
    for (const line of linesOfVerification(report, {whole: flags['no-trunc'], paint})) this.log(line)
    if (!report.sound) this.exitWithFindings()
    return report
  }
}

/** Plain where chalk finds that the terminal has no colours; of NO_COLOR (no-color.org) it knows nothing. */
async function verdictColours(): Promise<Paint> {
  const {default: chalk} = await import('chalk')
  return {good: chalk.green, bad: chalk.bold.red}
}
