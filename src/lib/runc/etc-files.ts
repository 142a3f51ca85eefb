// The generated /etc/hosts and /etc/resolv.conf of a workload with its own network namespace.

import type {HostEntry, WorkloadOptions} from './workload.ts'

/** As the reference's default: without a network of its own a workload should still fail by name, not by file. */
const DEFAULT_NAMESERVERS = ['8.8.8.8']

const LOOPBACK_HOSTS: readonly HostEntry[] = [
  {address: '127.0.0.1', host: 'localhost'},
  {address: '::1', host: 'localhost ip6-localhost ip6-loopback'},
  {address: 'fe00::0', host: 'ip6-localnet'},
  {address: 'ff00::0', host: 'ip6-mcastprefix'},
  {address: 'ff02::1', host: 'ip6-allnodes'},
  {address: 'ff02::2', host: 'ip6-allrouters'},
]

/** hosts(5). The workload's own host name resolves too: programs such as Java look themselves up. */
export function hostsFile(hostname: string, additions: readonly HostEntry[]): string {
  const entries = [...LOOPBACK_HOSTS, {address: '127.0.1.1', host: hostname}, ...additions]
  return entries.map(({address, host}) => `${address}\t${host}\n`).join('')
}

/** resolv.conf(5). */
export function resolvConfFile(
  workload: Pick<WorkloadOptions, 'dnsNameservers' | 'dnsSearchDomains' | 'dnsOptions'>,
): string {
  const {dnsNameservers = DEFAULT_NAMESERVERS, dnsSearchDomains = [], dnsOptions = []} = workload
  const lines = dnsNameservers.map(address => `nameserver ${address}`)
  if (dnsSearchDomains.length > 0) lines.push(`search ${dnsSearchDomains.join(' ')}`)
  if (dnsOptions.length > 0) lines.push(`options ${dnsOptions.join(' ')}`)
  return lines.map(line => `${line}\n`).join('')
}
