// Every file of a tree with everything that Linux says of it, as text to compare. Runs as a process of its own
// (`node describe-tree.ts DIRECTORY`), because the process that serves a tree must never wait for it.

import {spawnSync} from 'node:child_process'
import {createHash} from 'node:crypto'
import {lstatSync, readdirSync, readFileSync, readlinkSync} from 'node:fs'
import {fileURLToPath} from 'node:url'
import {runCommandOrThrow} from '../../src/lib/io/run-command.ts'

/** Path (bytes as Latin-1) to mode, links, owner, times, device, content, and extended attributes. */
export type TreeDescription = Readonly<Record<string, string>>

/** Describes the tree below `root`, without its names for what is in it; the root itself is ".". */
export async function describeTree(root: string): Promise<TreeDescription> {
  const {stdout} = await runCommandOrThrow(process.execPath, [fileURLToPath(import.meta.url), root])
  return JSON.parse(stdout)
}

function describeAll(root: string): TreeDescription {
  const lines: Record<string, string> = {}
  const firstNames = new Map<string, string>()
  const xattrs = xattrsBelow(root)
  const visit = (path: Buffer) => {
    const at = Buffer.concat([Buffer.from(`${root}/`), path])
    const status = lstatSync(at, {bigint: true})
    const name = path.toString('latin1')
    // The layers of an overlay have devices of their own, and count their inodes independently.
    const inode = `${status.dev}:${status.ino}`
    const firstName = firstNames.get(inode) ?? name
    firstNames.set(inode, firstName)
    lines[name] = [
      status.mode.toString(8),
      `links ${status.nlink}`,
      `${status.uid}:${status.gid}`,
      `${status.mtimeNs}ns`,
      status.isCharacterDevice() || status.isBlockDevice() ? `device ${status.rdev}` : '',
      status.isSymbolicLink() ? `-> ${readlinkSync(at, 'buffer').toString('latin1')}` : '',
      status.isSymbolicLink() ? `${status.size} bytes` : '',
      status.isFile() ? `${status.size} bytes ${digestOf(readFileSync(at))}` : '',
      firstName === name ? '' : `= ${firstName}`,
      xattrs.get(name) ?? '',
    ]
      .filter(Boolean)
      .join(' ')
    if (!status.isDirectory()) return
    for (const child of readdirSync(at, 'buffer').sort(Buffer.compare)) {
      visit(name === '.' ? child : Buffer.concat([path, Buffer.from('/'), child]))
    }
  }
  visit(Buffer.from('.'))
  return lines
}

function digestOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex').slice(0, 16)
}

/** All extended attributes by path: getfattr's, a block of lines a file, special bytes of names in octal. */
function xattrsBelow(root: string): Map<string, string> {
  const {stdout} = spawnSync('getfattr', ['-R', '-P', '-h', '-d', '-m', '-', '-e', 'hex', '.'], {
    cwd: root,
    encoding: 'latin1',
    maxBuffer: 1 << 28,
  })
  const blocks = stdout.split('\n\n').filter(Boolean)
  return new Map(
    blocks.map(block => {
      const [header = '', ...lines] = block.trim().split('\n')
      const name = header
        .slice('# file: '.length)
        .replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)))
      return [name, lines.sort().join(' ')]
    }),
  )
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.stdout.write(JSON.stringify(describeAll(process.argv[2]!)))
}
