import {type ChildProcess, spawn} from 'node:child_process'
import {once} from 'node:events'
import {join} from 'node:path'
import {createInterface} from 'node:readline'
import {expect, it, onTestFinished} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {runCommandOrThrow} from '../../src/lib/io/run-command.ts'
import {describeWith} from '../support/requires.ts'
import type {BackendKind} from './create-backend.ts'
import {describeBackends, mountDirectory} from './open-backend.ts'
import {servedLayer} from './served-layer.ts'

const RESTARTS = 5

/** A server, once it has taken over what the last one left. */
async function startServer(kind: BackendKind, directory: string): Promise<ChildProcess> {
  const program = join(import.meta.dirname, 'serve-layer.ts')
  const server = spawn(process.execPath, [program, kind, directory], {stdio: ['pipe', 'pipe', 'inherit']})
  onTestFinished(() => void server.kill('SIGKILL'))
  const line = createInterface({input: server.stdout!})[Symbol.asyncIterator]().next()
  expect(await Promise.race([line, once(server, 'exit')])).toEqual({value: 'ready', done: false})
  return server
}

describeWith(['root'], 'a layer whose server is killed', () => {
  describeBackends(kind => {
    it(`is read without an error and without a wrong byte over ${RESTARTS} kills`, async () => {
      const directory = await mountDirectory()
      const layer = servedLayer()
      const sums = [...layer.root.children].flatMap(([name, node]) =>
        node.type === 'reg'
          ? [`${digestOf(layer.data(node.dataOffset, node.size)).slice('sha256:'.length)}  ${name}`]
          : [],
      )
      let server = await startServer(kind, directory)
      const path = join(directory, 'layer')
      // As large reads miss the kernel's cache once, each reader starts elsewhere.
      const readers = ['ls', 'ls -r', 'ls -rv', 'ls -U'].map(order =>
        runCommandOrThrow('sh', ['-c', `${order} -p | grep -v / | xargs -n 7 sha256sum | sort -k2`], {
          cwd: path,
        }),
      )
      for (let restart = 0; restart < RESTARTS; restart++) {
        server.kill('SIGKILL')
        await once(server, 'exit')
        server = await startServer(kind, directory)
      }
      for (const {stdout} of await Promise.all(readers)) expect(stdout).toBe(sums.join('\n'))
      const {stdout} = await runCommandOrThrow('find', ['.', '-mindepth', '1', '-links', '2', '-type', 'f'], {
        cwd: path,
      })
      expect(stdout.split('\n')).toHaveLength(300)
      server.stdin!.end()
      expect((await once(server, 'exit'))[0]).toBe(0)
    })
  })
})
