import * as Flags from '@oclif/core/flags'
import {BaseCommand} from '../../base-command.ts'
import {CodedError} from '../../lib/errors/coded-error.ts'

export default class RegistryServe extends BaseCommand {
  static override summary = 'Serve the images of the store as a registry'
  static override description =
    `Speaks the OCI distribution API, for reading and writing, until it is interrupted. The URL is printed on stdout once
it listens, and every request on stderr. Without --user whoever reaches the address may write: it is the loopback
interface unless --listen says otherwise.`
  static override enableJsonFlag = false
  static override examples = [
    '<%= config.bin %> registry serve',
    '<%= config.bin %> registry serve --listen 0.0.0.0:5000 --user ci:secret --tlscert cert.pem --tlskey key.pem',
  ]

  static override flags = {
    listen: Flags.string({
      description: 'address and port; port 0 takes a free one',
      default: '127.0.0.1:5000',
    }),
    'read-only': Flags.boolean({description: 'refuse pushes'}),
    user: Flags.string({char: 'u', description: 'user:password that clients must present'}),
    tlscert: Flags.string({description: 'file of the certificate, PEM', dependsOn: ['tlskey']}),
    tlskey: Flags.string({description: "file of the certificate's key, PEM", dependsOn: ['tlscert']}),
    'log-format': Flags.option({options: ['text', 'json'] as const})({
      description: 'how requests are logged: text or json, one line each',
      default: 'text',
    }),
    quiet: Flags.boolean({char: 'q', description: 'log no requests'}),
  }

  async run(): Promise<void> {
    const {flags} = await this.parse(RegistryServe)
    const {formatRequest, readTls, splitAddress, splitCredentials} = await import('../../cli/serving.ts')
    const {serveRegistry} = await import('../../lib/registry-server/serve-registry.ts')
    const {user, tlscert, tlskey} = flags
    await using session = await this.openSession(flags)
    const {signal} = session
    const store = await session.store()
    await using registry = await serveRegistry(store, {
      ...splitAddress(flags.listen),
      readOnly: flags['read-only'],
      credentials: user === undefined ? undefined : splitCredentials(user),
      tls: tlscert !== undefined && tlskey !== undefined ? await readTls(tlscert, tlskey) : undefined,
      onRequest: entry => {
        if (!flags.quiet)
          session.say(flags['log-format'] === 'json' ? JSON.stringify(entry) : formatRequest(entry))
      },
    })
    this.log(registry.url)
    if (!signal.aborted) await new Promise(stopped => signal.addEventListener('abort', stopped, {once: true}))
    if (signal.reason instanceof CodedError && signal.reason.code !== 'cancelled') throw signal.reason
  }
}
