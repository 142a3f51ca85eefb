import {execFileSync} from 'node:child_process'
import {mkdir, symlink, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {describe, expect, it} from 'vitest'
import {mountPointsBelow} from '../../src/lib/mount/mount-table.ts'
import {readTextInRoot, resolveInRoot} from '../../src/lib/rootfs/rooted-path.ts'
import {temporaryDirectory} from '../support/temporary.ts'

async function treeWith(links: Readonly<Record<string, string>>): Promise<string> {
  const root = await temporaryDirectory()
  await mkdir(join(root, 'etc'))
  await writeFile(join(root, 'etc/passwd'), 'inside')
  for (const [name, target] of Object.entries(links)) await symlink(target, join(root, name))
  return root
}

describe('a path in a root', () => {
  const check = (path: string, links: Readonly<Record<string, string>>, expected: string) =>
    it(`${path} with ${JSON.stringify(links)} is ${expected}`, async () => {
      const root = await treeWith(links)
      expect(await resolveInRoot(root, path)).toBe(join(root, expected))
    })

  check('/etc/passwd', {}, 'etc/passwd')
  check('etc/../../..//etc/./passwd', {}, 'etc/passwd')
  check('/a/b', {a: '/etc'}, 'etc/b')
  check('/a', {a: '../../../../etc/shadow'}, 'etc/shadow')
  check('/a/..', {a: 'etc/x'}, 'etc')
  check('/a/c', {a: 'b', b: '/'}, 'c')
  check('/not/there', {}, 'not/there')

  it('cannot go round in circles', async () => {
    const root = await treeWith({a: 'b', b: 'a'})
    await expect(resolveInRoot(root, '/a')).rejects.toMatchObject({code: 'corrupt'})
  })
})

describe('a file in a root', () => {
  it('is read through links that stay within it', async () => {
    const root = await treeWith({'etc/group': '/../etc/passwd'})
    expect(await readTextInRoot(root, '/etc/group', 100)).toBe('inside')
  })

  it('is empty when there is none, when it is a directory, and when it is a pipe', async () => {
    const root = await treeWith({})
    execFileSync('mkfifo', [join(root, 'pipe')])
    for (const path of ['/none', '/none/x', '/etc', '/pipe', '/etc/passwd/x']) {
      expect(await readTextInRoot(root, path, 100)).toBe('')
    }
  })

  it('must not be larger than allowed', async () => {
    await expect(readTextInRoot(await treeWith({}), '/etc/passwd', 3)).rejects.toMatchObject({
      code: 'corrupt',
    })
  })
})

describe('mount points below a directory', () => {
  it('are found by whole components, with their escapes undone', () => {
    const line = (point: string) => `36 35 98:0 / ${point} rw - ext3 /dev/root rw`
    const mountinfo = ['/', '/a', '/a/b', '/ab', '/a/sp\\040ace', '/a/b/c'].map(line).join('\n')
    expect(mountPointsBelow(mountinfo, '/a')).toEqual(['/a', '/a/b', '/a/sp ace', '/a/b/c'])
  })
})
