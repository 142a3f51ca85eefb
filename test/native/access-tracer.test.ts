// The helper's own promises, without the TypeScript around it: nothing that happened is lost, and nothing stops it.

import {execFileSync, spawn} from 'node:child_process'
import {once} from 'node:events'
import {mkdirSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import {expect, it, onTestFinished} from 'vitest'
import {findNativeFile} from '../../src/lib/native/addon.ts'
import {mount, unmount} from '../../src/lib/native/system-calls.ts'
import {describeWith} from '../support/requires.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const program = findNativeFile('access-tracer')!

async function fileSystem(): Promise<string> {
  const target = await temporaryDirectory()
  mount({source: 'tmpfs', target, type: 'tmpfs', flags: 0, data: 'mode=755'})
  onTestFinished(() => unmount(target))
  return target
}

/** Starts the helper with at most `descriptors` open files; resolves when it is ready. */
async function start(directory: string, descriptors = 1024) {
  const child = spawn('sh', ['-c', `ulimit -n ${descriptors}; exec "$0" "$1"`, program, directory])
  const ended = once(child, 'close')
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await ended
  })
  let output = ''
  child.stdout.on('data', bytes => {
    output += bytes
  })
  await once(child.stdout, 'data')
  return {
    pause: () => child.kill('SIGSTOP'),
    resume: () => child.kill('SIGCONT'),
    /** The records after the first; the last is `E` when the helper ended as it should. */
    finish: async () => {
      child.stdin.end()
      const [code] = await ended
      const records = output.split('\0')
      expect([code, records.shift(), records.pop()]).toEqual([0, 'R', ''])
      return records
    },
  }
}

describeWith(['root', 'unshare', 'chroot'], 'the access-tracer helper', () => {
  it('loses nothing of what it reads late, however few files it may open', async () => {
    const root = await fileSystem()
    const names = Array.from({length: 5000}, (_, index) => `/file-${index}`)
    for (const name of names) writeFileSync(root + name, 'x')
    const tracer = await start(root)
    tracer.pause()
    execFileSync('sh', ['-c', 'printf "%s\\n" $(seq -f "file-%g" 0 4999) | xargs cat'], {cwd: root})
    tracer.resume()
    expect(await tracer.finish()).toEqual([...names.map(name => `F${name}`), 'E'])
  })

  it('is not stopped by pipes and devices, and does not report them', async () => {
    const root = await fileSystem()
    writeFileSync(join(root, 'file'), 'x')
    const tracer = await start(root)
    tracer.pause()
    const script = `mkfifo pipe; mknod null c 1 3; cat pipe & echo x > pipe; wait; cat null; ls . > null; cat file`
    execFileSync('sh', ['-ec', script], {cwd: root})
    tracer.resume()
    expect(await tracer.finish()).toEqual(['F/file', 'E'])
  })

  it('names a file that is gone as it was', async () => {
    const root = await fileSystem()
    writeFileSync(join(root, 'gone'), 'x')
    const tracer = await start(root)
    tracer.pause()
    execFileSync('sh', ['-ec', 'cat gone; rm gone'], {cwd: root})
    tracer.resume()
    expect(await tracer.finish()).toEqual(['F/gone', 'E'])
  })

  it('sees programs, their interpreters and their libraries, in a root and a mount namespace of its own', async () => {
    const root = await fileSystem()
    const cat = execFileSync('sh', ['-c', 'command -v cat'], {encoding: 'utf8'}).trim()
    const libraries = execFileSync('ldd', [cat], {encoding: 'utf8'}).match(/\/\S+/g) ?? []
    for (const path of [cat, ...libraries]) {
      mkdirSync(join(root, path, '..'), {recursive: true})
      execFileSync('cp', ['-L', path, join(root, path)])
    }
    writeFileSync(join(root, 'script'), `#!${cat}\n`, {mode: 0o755})
    const tracer = await start(root)
    execFileSync('unshare', ['--mount', 'chroot', root, '/script'])
    const records = await tracer.finish()
    expect(records.slice(0, 2)).toEqual(['F/script', `F${cat}`])
    expect(records.slice(2).sort()).toEqual(['E', ...libraries.map(path => `F${path}`)].sort())
  })

  it('explains itself when it is called wrongly, or cannot watch', async () => {
    const failure = (...args: string[]) => {
      try {
        execFileSync(program, args, {stdio: 'pipe'})
        return 'no error'
      } catch (error) {
        const {status, stderr} = error as {status: number; stderr: Buffer}
        return `${status}: ${stderr}`
      }
    }
    expect(failure()).toBe('2: usage: access-tracer DIRECTORY\n')
    expect(failure('/no/such/directory')).toMatch(
      /^1: access-tracer: cannot find the directory: No such file/,
    )
  })
})
