// The snapshotters of a containerd.

import {CodedError} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {ContainerdClient} from './client.ts'
import {describePlace} from './failure.ts'
import {Introspection} from './proto/introspection_pb.ts'

/** A snapshotter that containerd has. */
export interface Snapshotter {
  readonly name: string
  /** The socket of the daemon behind it; undefined for one that is part of containerd. */
  readonly address: string | undefined
}

/**
 * The snapshotter of this name. Throws `failed-precondition` when containerd has none, with what to write into its
 * configuration for the one that comes with this package.
 */
export async function findSnapshotter(
  client: ContainerdClient,
  name: string,
  options: CallOptions = {},
): Promise<Snapshotter> {
  const filters = ['type==io.containerd.snapshotter.v1']
  const {plugins} = await client.call(
    Introspection.method.plugins,
    {filters},
    {...options, doing: 'list snapshotters'},
  )
  const working = plugins.filter(({initErr}) => initErr === undefined)
  const found = working.find(({id}) => id === name)
  if (found) return {name, address: found.exports.address?.replace(/^unix:(\/\/)?/, '')}
  const names = working.map(({id}) => id).sort()
  throw new CodedError(
    'failed-precondition',
    `Cannot use the snapshotter ${JSON.stringify(name)}: ${describePlace(client)} has only ${names.join(', ')}${
      name === 'stargz' ? HOW_TO_ADD : ''
    }`,
  )
}

const HOW_TO_ADD = `. Start containerd-stargz-grpc, add this to containerd's config.toml, and restart containerd:
[proxy_plugins.stargz]
  type = "snapshot"
  address = "/run/containerd-stargz-grpc/containerd-stargz-grpc.sock"`
