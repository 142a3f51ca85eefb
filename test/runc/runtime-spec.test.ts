import {describe, expect, it} from 'vitest'
import type {RunConfig} from '../../src/lib/oci/manifest.ts'
import {hostsFile, resolvConfFile} from '../../src/lib/runc/etc-files.ts'
import {buildRuntimeSpec, type SandboxFacts} from '../../src/lib/runc/runtime-spec.ts'
import type {WorkloadOptions} from '../../src/lib/runc/workload.ts'

const FACTS: SandboxFacts = {
  id: 'ctr-remote-1',
  rootfs: '/sandbox/rootfs',
  user: {uid: 0, gid: 0, additionalGids: [0]},
  network: 'private',
  files: [],
}

function build(image: RunConfig, workload: WorkloadOptions = {}, facts: Partial<SandboxFacts> = {}) {
  return buildRuntimeSpec({Cmd: ['run'], ...image}, workload, {...FACTS, ...facts})
}

describe('the command of a workload', () => {
  const image = {Entrypoint: ['/entry', '-e'], Cmd: ['cmd']}
  const check = (name: string, workload: WorkloadOptions, expected: readonly string[]) =>
    it(name, () => expect(build(image, workload).process.args).toEqual(expected))

  check('is entrypoint and command of the image', {}, ['/entry', '-e', 'cmd'])
  check('keeps the command when the entrypoint is replaced', {entrypoint: ['new']}, ['new', 'cmd'])
  check('keeps the entrypoint when the command is replaced', {args: ['a', 'b']}, ['/entry', '-e', 'a', 'b'])
  check('can lose its command', {args: []}, ['/entry', '-e'])
  check('can be all new', {entrypoint: ['sh'], args: ['-c', 'true']}, ['sh', '-c', 'true'])
})

describe('the environment of a workload', () => {
  const check = (
    name: string,
    image: readonly string[],
    workload: readonly string[],
    expected: readonly string[],
  ) => it(name, () => expect(build({Env: image}, {env: workload}).process.env).toEqual(expected))
  const path = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

  check('has a default PATH', [], [], [path])
  check('has the PATH of the image', ['PATH=/app', 'A=1'], [], ['PATH=/app', 'A=1'])
  check(
    'has later values in the place of earlier ones',
    ['A=1', 'B=2'],
    ['A=3', 'C=x=y'],
    [path, 'A=3', 'B=2', 'C=x=y'],
  )
  check('loses what is named without a value', ['A=1', 'B=2'], ['A', 'NONE'], [path, 'B=2'])
  check('skips what has no name', ['=x'], [], [path])
})

describe('the sandbox of a workload', () => {
  it('has the namespaces, capabilities and limits that containerd gives', () => {
    const {process, linux, hostname} = build({})
    expect(linux.namespaces.map(({type}) => type)).toEqual(['pid', 'ipc', 'uts', 'mount', 'network'])
    expect(process.capabilities.bounding).toHaveLength(14)
    expect(process.rlimits).toEqual([{type: 'RLIMIT_NOFILE', hard: 1024, soft: 1024}])
    expect(process.noNewPrivileges).toBe(true)
    expect(linux.resources.devices[0]).toEqual({allow: false, access: 'rwm'})
    expect(linux.cgroupsPath).toBe('/ctr-remote-1')
    expect(hostname).toBe('ctr-remote-1')
  })

  it('joins the network that it is told to', () => {
    expect(build({}, {}, {network: 'host'}).linux.namespaces.map(({type}) => type)).not.toContain('network')
    expect(build({}, {}, {network: {path: '/run/netns/x'}}).linux.namespaces).toContainEqual({
      type: 'network',
      path: '/run/netns/x',
    })
  })

  it('mounts what the user asks for last, so that it wins', () => {
    const mount = {type: 'bind', source: '/a', destination: '/dev/shm', options: ['rbind']}
    expect(build({}, {mounts: [mount]}).mounts.at(-1)).toEqual(mount)
  })

  it('has a terminal only when asked', () => {
    expect(build({}).process.terminal).toBe(false)
    const {process} = build({}, {terminal: true})
    expect(process.terminal).toBe(true)
    expect(process.consoleSize).toBeUndefined()
    const sized = build({}, {terminal: true, terminalSize: {rows: 33, columns: 77}})
    expect(sized.process.consoleSize).toEqual({height: 33, width: 77})
    expect(process.env).toContain('TERM=xterm')
  })

  it('allows devices from CDI, and groups their hooks by stage', () => {
    const device = {path: '/dev/gpu', type: 'c', major: 195, minor: 0}
    const hook = {path: '/bin/hook'}
    const edits = {
      env: ['GPU=1'],
      mounts: [],
      devices: [device],
      hooks: [
        {stage: 'createContainer', hook},
        {stage: 'createContainer', hook},
      ] as const,
      additionalGids: [44],
    }
    const spec = build({}, {}, {edits})
    expect(spec.linux.devices).toEqual([device])
    expect(spec.linux.resources.devices.at(-1)).toEqual({
      allow: true,
      type: 'c',
      major: 195,
      minor: 0,
      access: 'rwm',
    })
    expect(spec.hooks).toEqual({createContainer: [hook, hook]})
    expect(spec.process.user.additionalGids).toEqual([0, 44])
  })
})

describe('generated files', () => {
  it('name the host itself, and what the user adds', () => {
    expect(hostsFile('me', [{host: 'db', address: '::2'}]).split('\n')).toEqual([
      '127.0.0.1\tlocalhost',
      '::1\tlocalhost ip6-localhost ip6-loopback',
      'fe00::0\tip6-localnet',
      'ff00::0\tip6-mcastprefix',
      'ff02::1\tip6-allnodes',
      'ff02::2\tip6-allrouters',
      '127.0.1.1\tme',
      '::2\tdb',
      '',
    ])
  })

  it('name the default server, or those of the user', () => {
    expect(resolvConfFile({})).toBe('nameserver 8.8.8.8\n')
    expect(resolvConfFile({dnsNameservers: ['1.1.1.1', '9.9.9.9'], dnsOptions: ['a', 'b']})).toBe(
      'nameserver 1.1.1.1\nnameserver 9.9.9.9\noptions a b\n',
    )
  })
})
