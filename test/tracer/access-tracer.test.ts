import {execFileSync, spawn} from 'node:child_process'
import {once} from 'node:events'
import {mkdir, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {expect, it, onTestFinished} from 'vitest'
import {unmountBelow} from '../../src/lib/mount/mounts.ts'
import {startAccessTracer} from '../../src/lib/tracer/access-tracer.ts'
import {describeWith} from '../support/requires.ts'
import {temporaryDirectory} from '../support/temporary.ts'

async function fileSystem(): Promise<string> {
  const directory = await temporaryDirectory()
  onTestFinished(() => unmountBelow(directory))
  execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', directory])
  return directory
}

describeWith(['root', 'unshare'], 'the access tracer', () => {
  it('reports each file once, in the order of first access, with whatever name it has', async () => {
    const root = await fileSystem()
    await mkdir(join(root, 'd'))
    for (const name of ['a', 'new\nline', 'd/c', 'unread']) await writeFile(join(root, name), 'x')
    await using tracer = await startAccessTracer(root)
    execFileSync(
      'cat',
      ['d/c', 'a', 'new\nline', 'd/c', 'a'].map(name => join(root, name)),
    )
    expect(await tracer.finish()).toMatchObject({paths: ['/d/c', '/a', '/new\nline'], overflowed: false})
  })

  it('sees what happens in other mount namespaces, by the names there', async () => {
    const root = await fileSystem()
    await writeFile(join(root, 'a'), 'x')
    const elsewhere = await temporaryDirectory()
    await using tracer = await startAccessTracer(root)
    // The namespace is there for as long as somebody is in it, as a container is while it runs.
    const script = `mount --bind ${root} ${elsewhere} && cat ${elsewhere}/a && read -r _`
    const child = spawn('unshare', ['--mount', 'sh', '-c', script], {stdio: ['pipe', 'pipe', 'inherit']})
    expect(String((await once(child.stdout, 'data'))[0])).toBe('x')
    expect((await tracer.finish()).paths).toEqual([`${elsewhere}/a`])
    child.stdin.end('\n')
    expect(await once(child, 'exit')).toEqual([0, null])
  })

  it('does not see other file systems', async () => {
    const root = await fileSystem()
    await using tracer = await startAccessTracer(root)
    execFileSync('cat', ['/etc/passwd'])
    expect((await tracer.finish()).paths).toEqual([])
  })

  it('says when it cannot watch', async () => {
    await expect(startAccessTracer('/no/such/directory')).rejects.toMatchObject({
      code: 'failed-precondition',
      message: expect.stringContaining('No such file'),
    })
  })

  it('stops when it is aborted before it is ready', async () => {
    const root = await fileSystem()
    await expect(startAccessTracer(root, {signal: AbortSignal.abort()})).rejects.toMatchObject({
      name: 'AbortError',
    })
  })
})
