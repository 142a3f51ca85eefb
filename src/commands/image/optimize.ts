import {tmpdir} from 'node:os'
import * as Flags from '@oclif/core/flags'
import {BaseCommand, word} from '../../base-command.ts'
import type {ConversionReport} from '../../cli/conversion-report.ts'
import {
  conversionFlags,
  copyCredsFlags,
  credsFlag,
  platformFlags,
  progressFlags,
  registryFlags,
} from '../../cli/flags.ts'
import {platformsFrom} from '../../lib/image/platform-selection.ts'

const list = {multiple: true, multipleNonGreedy: true} as const

export default class ImageOptimize extends BaseCommand {
  static override summary = 'Convert an image so that what its workload reads comes first'
  static override description =
    `Runs the image in a sandbox (runc), watches which files it reads, and writes eStargz or zstd:chunked layers with these
files first, so that a lazily pulled container starts before the rest is there. The digest of the new image is printed.
What the workload prints goes to stderr. Source and target are names in the store, or places such as docker://… and
oci:….`
  static override examples = [
    '<%= config.bin %> image optimize --oci example.com/foo:orig example.com/foo:esgz',
    `<%= config.bin %> image optimize --oci --entrypoint='["python3"]' --args='["-c","print(1)"]' --wait-on-line 1 python:3 python:esgz`,
    '<%= config.bin %> image optimize --static --oci docker://example.com/foo:1 docker://example.com/foo:1-esgz',
    '<%= config.bin %> image optimize --oci docker://example.com/foo:1 docker://example.com/foo:1-esgz',
  ]

  static override args = {
    source: word('image to optimize'),
    target: word('name or place of the new image'),
  }

  static override flags = {
    reuse: Flags.boolean({
      description: 'keep layers that are valid in the wanted format already, and of which no file was read',
    }),
    'no-optimize': Flags.boolean({description: 'run nothing, prioritize nothing'}),
    'profile-from-registry': Flags.boolean({
      description: 'prioritize what the profiles of the image in its registry say; nothing runs',
      exclusive: ['no-optimize', 'static', 'profile', 'prefetch-list', 'record-out', 'profile-out'],
    }),
    static: Flags.boolean({
      description:
        'prioritize what can be told from the image itself that a start reads; nothing runs, no root is needed',
      exclusive: [
        ...[
          'no-optimize',
          'profile',
          'profile-out',
          'prefetch-list',
          'period',
          'wait-on-line',
          'wait-on-signal',
        ],
        ...['terminal', 'i', 'user', 'mount', 'dns-nameservers', 'dns-search-domains', 'dns-options'],
        ...['add-hosts', 'cni', 'cni-plugin-conf-dir', 'cni-plugin-dir', 'net-host', 'gpus'],
      ],
    }),
    'record-out': Flags.string({
      description: 'write what was read to this file, for convert --estargz-record-in',
      exclusive: ['no-optimize', 'prefetch-list'],
    }),
    'profile-out': Flags.string({
      description: 'write what was read of each file, and when, to this file, for --profile',
      exclusive: ['no-optimize', 'prefetch-list', 'profile'],
    }),
    profile: Flags.string({
      ...list,
      description: 'prioritize what profiles or records say, several as one; nothing runs',
      exclusive: ['no-optimize', 'prefetch-list', 'record-out'],
    }),
    'prefetch-list': Flags.string({
      description: 'file of paths and globs to prioritize, in order; nothing runs',
      exclusive: ['no-optimize'],
    }),
    ...conversionFlags,
    period: Flags.integer({helpGroup: 'WORKLOAD', description: 'seconds to watch', default: 10, min: 0}),
    'wait-on-line': Flags.string({
      helpGroup: 'WORKLOAD',
      description: 'watch until a line of stdout contains this',
    }),
    'wait-on-signal': Flags.boolean({
      helpGroup: 'WORKLOAD',
      description: 'watch until SIGINT (Ctrl-C)',
      exclusive: ['terminal'],
    }),
    terminal: Flags.boolean({char: 't', helpGroup: 'WORKLOAD', description: 'give it a terminal; needs -i'}),
    i: Flags.boolean({char: 'i', helpGroup: 'WORKLOAD', description: 'give it our stdin'}),
    user: Flags.string({helpGroup: 'WORKLOAD', description: 'user[:group], names or ids'}),
    cwd: Flags.string({helpGroup: 'WORKLOAD', description: 'working directory'}),
    entrypoint: Flags.string({helpGroup: 'WORKLOAD', description: 'entrypoint, a JSON array'}),
    args: Flags.string({helpGroup: 'WORKLOAD', description: 'arguments, a JSON array'}),
    env: Flags.string({...list, helpGroup: 'WORKLOAD', description: 'NAME=value'}),
    'env-file': Flags.string({...list, helpGroup: 'WORKLOAD', description: 'file of NAME=value lines'}),
    mount: Flags.string({
      ...list,
      helpGroup: 'WORKLOAD',
      description: 'type=bind,src=/a,dst=/b,options=rbind:ro',
    }),
    'dns-nameservers': Flags.string({
      helpGroup: 'WORKLOAD',
      description: 'separated by commas',
      default: '8.8.8.8',
    }),
    'dns-search-domains': Flags.string({helpGroup: 'WORKLOAD', description: 'separated by commas'}),
    'dns-options': Flags.string({helpGroup: 'WORKLOAD', description: 'separated by commas'}),
    'add-hosts': Flags.string({helpGroup: 'WORKLOAD', description: 'host:IP, separated by commas'}),
    cni: Flags.boolean({helpGroup: 'WORKLOAD', description: 'network by CNI plugins'}),
    'cni-plugin-conf-dir': Flags.string({
      aliases: ['cni-plugin-config-dir'],
      helpGroup: 'WORKLOAD',
      description: 'directory of CNI configuration',
      default: '/etc/cni/net.d',
    }),
    'cni-plugin-dir': Flags.string({
      helpGroup: 'WORKLOAD',
      description: 'directory of CNI plugins',
      default: '/opt/cni/bin',
    }),
    'net-host': Flags.boolean({
      helpGroup: 'WORKLOAD',
      description: "use the host's network",
      exclusive: ['cni'],
    }),
    gpus: Flags.string({
      helpGroup: 'WORKLOAD',
      description: 'indices separated by commas, or all',
    }),
    ...platformFlags,
    ...progressFlags,
    ...registryFlags,
    ...credsFlag,
    ...copyCredsFlags,
  }

  async run(): Promise<ConversionReport> {
    const {args, flags} = await this.parse(ImageOptimize)
    const {optimizeConversion} = await import('../../cli/conversion.ts')
    const {format, oci, warnings} = optimizeConversion(flags)
    const {prioritiesFrom, workloadFrom} = await import('../../cli/workload.ts')
    const {findInRegistry} = await import('../../cli/profile-repository.ts')
    const workload = await workloadFrom(flags)
    const platforms = platformsFrom(flags)
    const {openConversionTarget} = await import('../../lib/conversion/conversion-target.ts')
    const {optimizeImage} = await import('../../lib/optimize/optimize-image.ts')
    const {describeConversion, reportConversion} = await import('../../cli/conversion-report.ts')
    const {archivePaths} = await import('../../lib/transport/image-location.ts')
    await this.keepOffStdout(
      [...archivePaths(args.target), flags['record-out'] ?? [], flags['profile-out'] ?? []].flat(),
    )
    await using session = await this.openSession(flags)
    const {signal, say} = session
    warnings.forEach(say)
    const priorities = flags['profile-from-registry']
      ? {from: 'elsewhere' as const, find: await findInRegistry(session, args.source)}
      : prioritiesFrom(flags, workload)
    await using source = await session.source(args.source)
    await using target = await openConversionTarget(session, args.target, format)
    const image = await session.watch(onProgress =>
      optimizeImage(source, target, {
        format,
        oci,
        platforms,
        priorities,
        reuse: flags.reuse,
        maxUncompressedSize: flags['max-layer-size'],
        memoryDirectory: session.memoryDirectory,
        temporaryDirectory: tmpdir(),
        onProgress,
        say,
        signal,
      }),
    )
    const report = describeConversion(target.image.name, image, target.extraImages)
    reportConversion(report, {
      format: flags.format,
      print: line => this.log(line),
      say,
      elapsedMs: session.elapsedMs(),
    })
    return report
  }
}
