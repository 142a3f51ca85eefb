import {writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {describe, expect, it} from 'vitest'
import {
  parseWords,
  readEnvFiles,
  splitList,
  type WorkloadFlags,
  workloadFrom,
} from '../../src/cli/workload.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const invalid = expect.objectContaining({code: 'invalid-argument'})

const defaults: WorkloadFlags = {
  terminal: false,
  i: false,
  'dns-nameservers': '8.8.8.8',
  cni: false,
  'cni-plugin-conf-dir': '/etc/cni/net.d',
  'cni-plugin-dir': '/opt/cni/bin',
  'net-host': false,
}

describe('the workload that flags describe', () => {
  it('is the image with one name server when they say nothing', async () => {
    expect(await workloadFrom(defaults)).toMatchObject({
      entrypoint: undefined,
      args: undefined,
      env: [],
      mounts: undefined,
      dnsNameservers: ['8.8.8.8'],
      addHosts: [],
      netHost: false,
      cni: undefined,
      stdin: undefined,
      gpus: undefined,
    })
  })

  it('has everything that they say', async () => {
    const workload = await workloadFrom({
      ...defaults,
      i: true,
      user: 'www:adm',
      cwd: '/srv',
      entrypoint: '["sh","-c"]',
      args: '["echo $A"]',
      env: ['A=1', 'B=a,b'],
      mount: ['type=bind,src=/a,dst=/b,options=rbind:ro'],
      'dns-nameservers': '1.1.1.1, 9.9.9.9',
      'dns-search-domains': 'a.test,b.test',
      'dns-options': 'ndots:2',
      'add-hosts': 'db:10.0.0.1,six:[::1]',
      cni: true,
      'cni-plugin-dir': '/cni',
      gpus: 'all',
    })
    expect(workload).toMatchObject({
      entrypoint: ['sh', '-c'],
      args: ['echo $A'],
      env: ['A=1', 'B=a,b'],
      user: 'www:adm',
      cwd: '/srv',
      mounts: [{type: 'bind', source: '/a', destination: '/b', options: ['rbind', 'ro']}],
      dnsNameservers: ['1.1.1.1', '9.9.9.9'],
      dnsSearchDomains: ['a.test', 'b.test'],
      dnsOptions: ['ndots:2'],
      addHosts: [
        {host: 'db', address: '10.0.0.1'},
        {host: 'six', address: '::1'},
      ],
      cni: {confDir: '/etc/cni/net.d', pluginDir: '/cni'},
      stdin: 'inherit',
      gpus: 'all',
    })
  })

  const refuses = (what: string, flags: Partial<WorkloadFlags>) =>
    it(`is refused: ${what}`, async () => {
      await expect(workloadFrom({...defaults, ...flags})).rejects.toEqual(invalid)
    })
  refuses('a terminal without input', {terminal: true})
  refuses('two kinds of network', {cni: true, 'net-host': true})
  refuses('an entrypoint that is no JSON', {entrypoint: 'sh -c'})
  refuses('arguments that are no strings', {args: '["a", 1]'})
  refuses('a host without an address', {'add-hosts': 'db'})
  refuses('a mount without a target', {mount: ['type=bind,src=/a']})
  refuses('no such GPU', {gpus: 'all,1'})
})

describe('environment files', () => {
  it('come before --env, in their order, without blank lines and comments', async () => {
    const directory = await temporaryDirectory()
    await writeFile(join(directory, 'one'), '# comment\nA=1\r\n\nB= spaces kept \n')
    await writeFile(join(directory, 'two'), 'A=2')
    const files = [join(directory, 'one'), join(directory, 'two')]
    expect(await readEnvFiles(files)).toEqual(['A=1', 'B= spaces kept ', 'A=2'])
    const workload = await workloadFrom({...defaults, 'env-file': files, env: ['A=3']})
    expect(workload.env?.at(-1)).toBe('A=3')
  })

  it('that are missing are named', async () => {
    await expect(readEnvFiles(['/nonexistent/env'])).rejects.toMatchObject({
      code: 'not-found',
      message: expect.stringContaining('/nonexistent/env'),
    })
  })
})

describe('words and lists', () => {
  it('an empty JSON array is a choice, an empty flag is none', () => {
    expect(parseWords('--args', '[]')).toEqual([])
    expect(parseWords('--args', '')).toBeUndefined()
    expect(parseWords('--args', undefined)).toBeUndefined()
  })
  it('lists have no empty items', () => {
    expect(splitList('a,, b,')).toEqual(['a', 'b'])
    expect(splitList(undefined)).toEqual([])
  })
})
