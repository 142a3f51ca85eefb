import {spawn, spawnSync} from 'node:child_process'
import {once} from 'node:events'
import {chmod, copyFile, mkdir, readdir, readFile, symlink, writeFile} from 'node:fs/promises'
import {connect} from 'node:net'
import {dirname, join, resolve} from 'node:path'
import {afterAll, beforeAll, describe, expect, it} from 'vitest'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {serveRegistry} from '../../src/lib/registry-server/serve-registry.ts'
import {CTR_REMOTE, createUser, type User} from '../support/ctr-remote.ts'
import {describeWith} from '../support/requires.ts'
import {writeSampleImage} from '../support/sample-image.ts'

let user: User
beforeAll(async () => {
  user = await createUser()
})
afterAll(() => user[Symbol.asyncDispose]())

const {version} = JSON.parse(await readFile(resolve(import.meta.dirname, '../../package.json'), 'utf8')) as {
  version: string
}

/** A program of that name in a directory of its own; resolves to the directory. */
async function fakeProgram(name: string, script: string): Promise<string> {
  const directory = join(user.home, `${name}-${Math.random().toString(36).slice(2)}`)
  await mkdir(directory)
  await writeFile(join(directory, name), `#!/bin/sh\n${script}\n`, {mode: 0o755})
  return directory
}

describe('the launcher', () => {
  for (const argv of [['--version'], ['-v'], ['-n', 'k8s.io', '--version']]) {
    it(`${argv.join(' ')} prints the version`, async () => {
      expect(await user.run(...argv)).toEqual({exitCode: 0, stdout: `ctr-remote ${version}\n`, stderr: ''})
    })
  }

  it('finds its package through a chain of links, absolute and relative', async () => {
    const directory = join(user.home, 'links')
    await mkdir(directory)
    await symlink(CTR_REMOTE, join(directory, 'first'))
    await symlink('first', join(directory, 'second'))
    const {stdout} = spawnSync(join(directory, 'second'), ['--version'], {encoding: 'utf8', cwd: '/'})
    expect(stdout).toBe(`ctr-remote ${version}\n`)
  })

  it('starts with the code that the build has made, and keeps none for its user', async () => {
    await using other = await createUser()
    await using store = await openLocalStore(join(other.home, 'served'))
    await using _lease = await store.lease()
    await store.images.put('localhost/sample:1', (await writeSampleImage(store.content)).root)
    await using registry = await serveRegistry(store)
    // What a pull loads after its first request, too: V8's flags are what they were.
    for (const argv of [
      ['image', 'ls'],
      ['image', 'pull', `${registry.address}/sample:1`],
    ]) {
      expect((await other.run(...argv)).exitCode).toBe(0)
    }
    expect(await readdir(other.home)).not.toContain('.cache')
  })

  it('says what is missing where Node.js is too old', async () => {
    const root = join(user.home, 'package')
    await copyLauncher(root)
    await chmod(join(root, 'bin/ctr-remote'), 0o755)
    const oldNode = await fakeProgram('node', 'echo v22.18.0')
    const {status, stderr} = spawnSync(join(root, 'bin/ctr-remote'), ['--version'], {
      encoding: 'utf8',
      env: {PATH: `${oldNode}:${await essentialTools()}`},
    })
    expect(status).toBe(1)
    expect(stderr).toContain('needs Node.js 22.19 or newer')
  })

  it('says that a checkout is not built', async () => {
    const root = join(user.home, 'unbuilt')
    await copyLauncher(root)
    const node = await fakeProgram('node', 'echo v24.0.0')
    const {status, stderr} = spawnSync('sh', [join(root, 'bin/ctr-remote')], {
      encoding: 'utf8',
      env: {PATH: `${node}:/usr/bin:/bin`},
    })
    expect(status).toBe(1)
    expect(stderr).toContain('is not built; run bin/setup there')
  })

  it('gives compression a thread per core, and leaves a chosen number alone', async () => {
    const node = await fakeProgram(
      'node',
      `[ "$1" = --version ] && echo v24.0.0 || echo "$UV_THREADPOOL_SIZE"`,
    )
    const root = join(user.home, 'threads')
    await mkdir(join(root, 'dist/cli'), {recursive: true})
    await writeFile(join(root, 'dist/cli/start.cjs'), '')
    await copyLauncher(root)
    const threads = (env: Record<string, string>) =>
      spawnSync('sh', [join(root, 'bin/ctr-remote')], {
        encoding: 'utf8',
        env: {PATH: `${node}:/usr/bin:/bin`, ...env},
      }).stdout.trim()
    expect(Number(threads({}))).toBeGreaterThanOrEqual(4)
    expect(threads({UV_THREADPOOL_SIZE: '2'})).toBe('2')
  })
})

/** Copies the launcher, and what it is made of, into another package's folder. */
async function copyLauncher(root: string): Promise<void> {
  await mkdir(join(root, 'bin'), {recursive: true})
  await copyFile(CTR_REMOTE, join(root, 'bin/ctr-remote'))
  await copyFile(join(dirname(CTR_REMOTE), 'launch.sh'), join(root, 'bin/launch.sh'))
}

/** A directory with what the launcher needs of the system: neither Node.js nor ctr are in it. */
async function essentialTools(): Promise<string> {
  const directory = await fakeProgram('true', '')
  for (const tool of ['sh', 'dirname', 'readlink', 'getconf']) {
    await symlink(`/usr/bin/${tool}`, join(directory, tool))
  }
  return directory
}

describe('help', () => {
  for (const argv of [[], ['--help'], ['-h'], ['help']]) {
    it(`"${argv.join(' ')}" lists topics and commands on stdout`, async () => {
      const {exitCode, stdout, stderr} = await user.run(...argv)
      expect({exitCode, stderr}).toEqual({exitCode: 0, stderr: ''})
      for (const word of ['image', 'registry', 'version', 'autocomplete']) expect(stdout).toContain(word)
    })
  }

  it('lists the commands of a topic, by any of its names', async () => {
    for (const topic of ['image', 'images', 'i']) {
      const {exitCode, stdout} = await user.run(topic)
      expect(exitCode).toBe(0)
      expect(stdout).toMatch(/image pull .*\n(.*\n)*.*image rm /)
    }
  })

  it('tells the flags of a command', async () => {
    const {exitCode, stdout} = await user.run('images', 'pull', '--help')
    expect(exitCode).toBe(0)
    expect(stdout).toContain('--all-platforms')
    expect((await user.run('help', 'image', 'pull')).stdout).toBe(stdout)
  })
})

describe('commands that are not ours', () => {
  it('are handed to ctr: arguments, exit code and all', async () => {
    const directory = await fakeProgram(
      'ctr',
      'for word; do echo "<$word>"; done; echo complaint >&2; exit 7',
    )
    await using other = await createUser({PATH: `${directory}:${process.env.PATH}`})
    const {exitCode, stdout, stderr} = await other.run(
      '-v',
      '--store',
      'local',
      '-n',
      'k8s.io',
      'tasks',
      '--rm',
      'a b',
      '--',
      '-v',
      '--help',
    )
    expect(stdout.trim().split('\n')).toEqual([
      '<-n>',
      '<k8s.io>',
      '<tasks>',
      '<--rm>',
      '<a b>',
      '<-->',
      '<-v>',
      '<--help>',
    ])
    expect({exitCode, stderr}).toEqual({exitCode: 7, stderr: 'complaint\n'})
  })

  it('include image commands that we lack, and their help', async () => {
    const directory = await fakeProgram('ctr', 'echo "$*"')
    await using other = await createUser({PATH: `${directory}:${process.env.PATH}`})
    expect((await other.run('images', 'usage')).stdout).toBe('image usage\n')
    expect((await other.run('image', 'usage', '--help')).stdout).toBe('image usage --help\n')
  })

  it('are an error where there is no ctr', async () => {
    const {status, stdout, stderr} = spawnSync(CTR_REMOTE, ['image', 'usage', 'x'], {
      encoding: 'utf8',
      env: {HOME: user.home, PATH: await essentialTools()},
    })
    expect({status, stdout}).toEqual({status: 10, stdout: ''})
    expect(stderr).toBe(
      'ctr-remote: Cannot run "image usage": ctr-remote has no such command, and there is no "ctr" on the PATH to hand it to\n',
    )
  })

  describe('are not handed to ctr where they look like ours', () => {
    const check = (line: string, suggestion: string) =>
      it(line, async () => {
        const directory = await fakeProgram('ctr', 'echo "ctr $*"')
        await using other = await createUser({PATH: `${directory}:${process.env.PATH}`})
        const {exitCode, stdout, stderr} = await other.run(...line.split(' '))
        expect({exitCode, stdout}).toEqual({exitCode: 2, stdout: ''})
        expect(stderr).toMatch(/^ctr-remote: Cannot run ".*": there is no such command; .*\n$/)
        expect(stderr).toContain(suggestion)
      })
    check('image optimise a b', 'did you mean "image optimize"?')
    check('images optimise --help', 'did you mean "image optimize"?')
    check('image pul x', 'did you mean "image pull"?')
    check('imgae ls', 'did you mean "image"?')
    check('lazy stat', 'did you mean "lazy status"?')
    check('lazy frobnicate', 'see ctr-remote lazy --help')
  })
})

describe('bad command lines exit 2', () => {
  const check = (line: string, message: RegExp) =>
    it(line, async () => {
      const {exitCode, stdout, stderr} = await user.run(...line.split(' '))
      expect(stderr).toMatch(message)
      expect(stderr).toMatch(/^ctr-remote: .*\n$/)
      expect({exitCode, stdout}).toEqual({exitCode: 2, stdout: ''})
    })
  check('--frobnicate image ls', /"--frobnicate"/)
  check('image pull', /Missing REF; usage: ctr-remote image pull \[FLAGS\] REF\n$/)
  check('image convert a', /Missing TARGET; usage: ctr-remote image convert \[FLAGS\] SOURCE TARGET\n$/)
  check('image pull a b', /Unexpected "b"; usage: ctr-remote image pull \[FLAGS\] REF\n$/)
  check('image ls --frobnicate', /Unknown flag --frobnicate; see ctr-remote image ls --help\n$/)
  check('image pull x --platfrm linux/amd64', /Unknown flag --platfrm \(did you mean --platform\?\)/)
  check('image pull x --platform linux/amd64 --all-platforms', /--all-platforms/)
  check('image pull x --label nothing', /"nothing"/)
  check('image pull x --platform a/b/c/d', /"a\/b\/c\/d"/)
  check('image ls --store nowhere', /--store=nowhere/)
  check('image ls --timeout 5', /"5"/)
  check('image pull a//b', /a\/\/b/)

  it('with --json, as an object too', async () => {
    const {exitCode, stdout, stderr} = await user.run('image', 'rm', 'missing', '--json')
    expect(exitCode).toBe(3)
    const {error} = JSON.parse(stdout)
    expect(error.code).toBe('not-found')
    expect(stderr).toBe(`ctr-remote: ${error.message}\n`)
  })
})

describe('an empty store', () => {
  it('lists its columns', async () => {
    const {exitCode, stdout, stderr} = await user.run('image', 'ls')
    expect({exitCode, stderr}).toEqual({exitCode: 0, stderr: ''})
    expect(stdout.split(/\s+/).filter(Boolean)).toEqual([
      'REF',
      'TYPE',
      'DIGEST',
      'SIZE',
      'PLATFORMS',
      'LABELS',
    ])
  })
  it('lists nothing with -q, and an empty array with --json', async () => {
    expect((await user.run('image', 'ls', '-q')).stdout).toBe('')
    expect(JSON.parse((await user.run('image', 'ls', '--json')).stdout)).toEqual([])
  })
  it('says with -v which one it is', async () => {
    const {stderr} = await user.run('-v', 'image', 'ls')
    expect(stderr).toBe(`store: local (${user.home}/.local/share/ctr-remote/images)\n`)
  })
})

describeWith(['unshare'], 'a user without an entry in passwd', () => {
  const AS_UNKNOWN = ['--user', '--map-user=12345', '--map-group=12345']
  /** Runs the program as user 12345, who sees the files that we see. */
  const runUnknown = (argv: readonly string[], env: Readonly<Record<string, string>> = {}) => {
    const {status, stdout, stderr} = spawnSync('unshare', [...AS_UNKNOWN, CTR_REMOTE, ...argv], {
      encoding: 'utf8',
      env: {PATH: process.env.PATH, CTR_REMOTE_STORE: 'local', ...env},
    })
    return {status, stdout, stderr}
  }

  for (const argv of [['version'], ['help'], ['image', 'convert', '--help'], ['--version']]) {
    it(`and without a home can run "${argv.join(' ')}"`, () => {
      expect(runUnknown(argv)).toMatchObject({status: 0, stderr: ''})
    })
  }

  it('and without a home moves images between places that need none', async () => {
    const directory = join(user.home, 'unknown')
    const store = await openLocalStore(directory)
    const lease = await store.lease()
    const {root} = await writeSampleImage(store.content)
    await store.images.put('localhost/sample:1', root)
    await lease[Symbol.asyncDispose]()
    await using registry = await serveRegistry(store)
    const source = `docker://${registry.address}/sample:1`
    // This process serves what the program asks for, so it must not wait for it in spawnSync.
    const argv = ['image', 'convert', '--estargz', '--oci', source, `oci:${directory}-out:1`]
    const child = spawn('unshare', [...AS_UNKNOWN, CTR_REMOTE, ...argv], {
      env: {PATH: process.env.PATH},
      stdio: 'ignore',
    })
    expect(await once(child, 'exit')).toEqual([0, null])
    expect(runUnknown(['image', 'verify', `oci:${directory}-out:1`])).toMatchObject({status: 0})
  })

  it('is told what needs a home', () => {
    expect(runUnknown(['image', 'ls'])).toEqual({
      status: 5,
      stdout: '',
      stderr:
        'ctr-remote: Cannot choose a directory for the local store: set --data-dir, XDG_DATA_HOME or HOME\n',
    })
    expect(runUnknown(['autocomplete', 'script', 'bash'])).toEqual({
      status: 5,
      stdout: '',
      stderr: 'ctr-remote: Cannot keep completions: set XDG_CACHE_HOME or HOME\n',
    })
  })

  it('and with a home has a store there', () => {
    const listed = runUnknown(['image', 'ls', '--json'], {HOME: user.home})
    expect(listed).toEqual({status: 0, stdout: '[]\n', stderr: ''})
  })
})

describe('output that nobody reads', () => {
  it('a closed stdout is no failure', () => {
    const {status, stderr} = spawnSync('sh', ['-c', `"$0" --help | true; "$0" image ls | true`, CTR_REMOTE], {
      encoding: 'utf8',
      env: {...process.env, HOME: user.home, CTR_REMOTE_STORE: 'local'},
    })
    expect({status, stderr}).toEqual({status: 0, stderr: ''})
  })
})

describe('registry serve', () => {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    it(`prints its URL, logs requests, and ends well on ${signal}`, async () => {
      const serving = user.start('registry', 'serve', '--listen', '127.0.0.1:0')
      const url = await serving.line('stdout', /^http:/)
      expect((await fetch(`${url}/v2/`)).status).toBe(200)
      await serving.line('stderr', /^GET \/v2\/ 200/)
      serving.child.kill(signal)
      expect((await serving.finished).exitCode).toBe(0)
    })
  }

  it('asks for the credentials it was given, and never prints them', async () => {
    const serving = user.start(
      'registry',
      'serve',
      '--listen',
      '127.0.0.1:0',
      '--user',
      'ci:hunter2',
      '--log-format',
      'json',
    )
    const url = await serving.line('stdout', /^http:/)
    expect((await fetch(`${url}/v2/`)).status).toBe(401)
    const authorization = `Basic ${Buffer.from('ci:hunter2').toString('base64')}`
    expect((await fetch(`${url}/v2/`, {headers: {authorization}})).status).toBe(200)
    expect(JSON.parse(await serving.line('stderr', /"status":200/))).toMatchObject({
      method: 'GET',
      path: '/v2/',
    })
    serving.child.kill('SIGTERM')
    const {stdout, stderr} = await serving.finished
    expect(stdout + stderr).not.toContain('hunter2')
  })

  it('waits for running requests on the first signal, and not on the second', async () => {
    const serving = user.start('registry', 'serve', '--listen', '127.0.0.1:0')
    const url = new URL(await serving.line('stdout', /^http:/))
    const connection = connect(Number(url.port), url.hostname)
    connection.on('error', () => {})
    // The registry has begun to answer when it asks for the body, which never comes.
    const headers = 'Host: x\r\nContent-Length: 10\r\nExpect: 100-continue'
    connection.write(`PUT /v2/app/manifests/1 HTTP/1.1\r\n${headers}\r\n\r\n`)
    await new Promise(asked => connection.once('data', asked))
    serving.child.kill('SIGINT')
    const impatient = setInterval(() => serving.child.kill('SIGINT'), 20)
    expect((await serving.finished).exitCode).toBe(130)
    clearInterval(impatient)
    connection.destroy()
  })

  it('says when the address is taken', async () => {
    const serving = user.start('registry', 'serve', '--listen', '127.0.0.1:0')
    const url = await serving.line('stdout', /^http:/)
    const second = await user.run('registry', 'serve', '--listen', new URL(url).host)
    expect(second.exitCode).toBe(5)
    serving.child.kill('SIGTERM')
    await serving.finished
  })
})

describeWith(['bash'], 'completion in bash', () => {
  it('completes commands and flags with what autocomplete has set up', async () => {
    await user.run('autocomplete', '--refresh-cache')
    const setup = await user.run('autocomplete', 'script', 'bash')
    const script = `${setup.stdout}
      complete() { :; }
      try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _ctr-remote_autocomplete; echo "\${COMPREPLY[*]}"; }
      try ctr-remote im
      try ctr-remote image pu
      try ctr-remote image pull --all-p`
    const {stdout} = spawnSync('bash', ['-c', script], {
      encoding: 'utf8',
      env: {...process.env, HOME: user.home},
    })
    const [topics, commands, flags] = stdout.split('\n')
    expect(topics).toMatch(/^image\b/)
    expect(commands).toBe('pull push')
    expect(flags).toBe('--all-platforms')
  })
})
