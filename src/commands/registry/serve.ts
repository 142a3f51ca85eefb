import * as Flags from '@oclif/core/flags'
import {BaseCommand} from '../../base-command.ts'
import {parseDurationMs} from '../../cli/duration.ts'
import type {PullThroughFlags} from '../../cli/pull-through.ts'
import type {Session} from '../../cli/session.ts'
import {CodedError} from '../../lib/errors/coded-error.ts'
import type {RequestLogEntry} from '../../lib/registry-server/answer-request.ts'
import type {ListenOptions, RunningServer} from '../../lib/registry-server/http-server.ts'

const duration = Flags.custom<number>({parse: async text => parseDurationMs(text)})

const CONVERTING = 'CONVERTING'
/** What has a meaning only where there is an upstream. */
const ofUpstreams = {helpGroup: CONVERTING, dependsOn: ['upstream']}

export default class RegistryServe extends BaseCommand {
  static override summary =
    'Serve the images of the store as a registry, or those of other registries converted'
  static override description =
    `Speaks the OCI distribution API until it is interrupted. The URL is printed on stdout once it listens, and every request
on stderr. It is the loopback interface unless --listen says otherwise.

Without --upstream it serves the store, for reading and writing; without --user whoever reaches the address may write.

With --upstream it stands before other registries and converts what is pulled through it: HOST:PORT/docker.io/library/debian,
or containerd's mirror form, is debian as eStargz, once it has been converted, and debian as it is until then. Every pull is
checked with its registry, with the client's own credentials.`
  static override enableJsonFlag = false
  static override examples = [
    '<%= config.bin %> registry serve',
    '<%= config.bin %> registry serve --listen 0.0.0.0:5000 --user ci:secret --tlscert cert.pem --tlskey key.pem',
    '<%= config.bin %> registry serve --upstream docker.io --upstream ghcr.io --max-size 50GiB',
  ]

  static override flags = {
    listen: Flags.string({
      description: 'address and port; port 0 takes a free one',
      default: '127.0.0.1:5000',
    }),
    'read-only': Flags.boolean({description: 'refuse pushes', exclusive: ['upstream']}),
    user: Flags.string({
      char: 'u',
      description: 'user:password that clients must present',
      exclusive: ['upstream'],
    }),
    tlscert: Flags.string({description: 'file of the certificate, PEM', dependsOn: ['tlskey']}),
    tlskey: Flags.string({description: "file of the certificate's key, PEM", dependsOn: ['tlscert']}),
    'log-format': Flags.option({options: ['text', 'json'] as const})({
      description: 'how requests are logged: text or json, one line each',
      default: 'text',
    }),
    quiet: Flags.boolean({char: 'q', description: 'log no requests'}),
    upstream: Flags.string({
      helpGroup: CONVERTING,
      description:
        'registry to stand before: DOMAIN, or NAME=DOMAIN; repeatable, the first is meant where a client names none; * for any',
      multiple: true,
      multipleNonGreedy: true,
    }),
    wait: duration({
      ...ofUpstreams,
      description:
        'how long a pull by tag waits for the conversion before it gets the image as it is (default: 0)',
    }),
    platform: Flags.string({
      ...ofUpstreams,
      description:
        "os/architecture[/variant], repeatable: converted when a tag is pulled, others when they are pulled themselves (default: this machine's)",
      multiple: true,
      multipleNonGreedy: true,
      delimiter: ',',
    }),
    'all-platforms': Flags.boolean({
      ...ofUpstreams,
      description: 'convert all platforms when a tag is pulled',
      exclusive: ['platform'],
    }),
    'max-size': Flags.string({
      ...ofUpstreams,
      description:
        'how much of what was converted is kept; what was not used for the longest time goes first (default: 20GiB)',
    }),
    profiles: Flags.string({
      ...ofUpstreams,
      description:
        'directory of profiles or records, such as DIR/docker.io/library/debian.json: what they say was read comes first',
    }),
    'push-to': Flags.string({
      ...ofUpstreams,
      description:
        'where copies of converted images go, with the credentials that docker login stored: REGISTRY/NAME, below which each upstream has a directory',
    }),
    'webhook-secret-file': Flags.string({
      ...ofUpstreams,
      description:
        'file of the secret by which registries may say at /webhook what was pushed, which is converted ahead',
    }),
    metrics: Flags.string({
      ...ofUpstreams,
      description: 'address and port at which /metrics is served for Prometheus; nowhere without it',
    }),
    url: Flags.string({...ofUpstreams, description: 'how clients reach this registry, behind a proxy'}),
    'hosts-dir': Flags.string({
      ...ofUpstreams,
      description: "directory of hosts.toml files for upstreams, as containerd's certs.d",
    }),
    'plain-http': Flags.boolean({
      ...ofUpstreams,
      description: 'use HTTP without TLS for upstreams (hosts on the loopback interface need no flag)',
    }),
    'skip-verify': Flags.boolean({
      ...ofUpstreams,
      char: 'k',
      description: 'do not check TLS certificates of upstreams',
    }),
    tlscacert: Flags.string({
      ...ofUpstreams,
      description: 'file of the certificate authority to trust for upstreams',
    }),
  }

  async run(): Promise<void> {
    const {flags} = await this.parse(RegistryServe)
    const {formatRequest, readTls, splitAddress} = await import('../../cli/serving.ts')
    const {tlscert, tlskey} = flags
    await using session = await this.openSession({...flags, tlscert: undefined, tlskey: undefined})
    const {signal} = session
    const listen = {
      ...splitAddress(flags.listen),
      tls: tlscert !== undefined && tlskey !== undefined ? await readTls(tlscert, tlskey) : undefined,
    }
    const onRequest = (entry: RequestLogEntry) => {
      if (flags.quiet) return
      session.say(flags['log-format'] === 'json' ? JSON.stringify(entry) : formatRequest(entry))
    }
    await using registry = await this.#open(flags, session, listen, onRequest)
    this.log(registry.url)
    if (!signal.aborted) await new Promise(stopped => signal.addEventListener('abort', stopped, {once: true}))
    if (signal.reason instanceof CodedError && signal.reason.code !== 'cancelled') throw signal.reason
  }

  async #open(
    {upstream = [], ...flags}: ServeFlags,
    session: Session,
    listen: ListenOptions,
    onRequest: (entry: RequestLogEntry) => void,
  ): Promise<RunningServer> {
    if (upstream.length > 0) {
      const {openPullThrough} = await import('../../cli/pull-through.ts')
      const {userAgent} = this.config
      return openPullThrough({...flags, upstream}, {session, userAgent, listen, onRequest})
    }
    const {splitCredentials} = await import('../../cli/serving.ts')
    const {serveRegistry} = await import('../../lib/registry-server/serve-registry.ts')
    return serveRegistry(await session.store(), {
      ...listen,
      readOnly: flags['read-only'],
      credentials: flags.user === undefined ? undefined : splitCredentials(flags.user),
      onRequest,
    })
  }
}

type ServeFlags = Omit<PullThroughFlags, 'upstream'> & {
  readonly upstream?: readonly string[] | undefined
  readonly 'read-only': boolean
  readonly user?: string | undefined
}
