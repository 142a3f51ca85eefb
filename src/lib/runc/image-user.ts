// Who a workload runs as: `User` of an image config, looked up in the image's own /etc/passwd and /etc/group.

import {CodedError} from '../errors/coded-error.ts'

/** User and groups of a process, as the OCI runtime spec has them. */
export interface ProcessUser {
  readonly uid: number
  readonly gid: number
  readonly additionalGids: readonly number[]
}

/** The image's account files; empty text where it has none. */
export interface AccountFiles {
  readonly passwd: string
  readonly group: string
}

interface Account {
  readonly name: string
  readonly uid: number
  readonly gid: number
}

interface Group {
  readonly name: string
  readonly gid: number
  readonly members: readonly string[]
}

/** Largest id: the kernel reserves 2^32-1, and runc takes 2^31-1. */
const MAX_ID = 2 ** 31 - 1

/**
 * Resolves `user` (`name`, `uid`, `name:group`, `uid:gid`; empty is root) as containerd does: a user without a group
 * has that of its account, 0 without an account, and the groups that list it as a member are supplementary. Throws
 * `not-found` for a name that the image does not know, `invalid-argument` for text that is neither.
 */
export function resolveUser(user: string, files: AccountFiles): ProcessUser {
  const [userPart = '', groupPart, ...rest] = user.split(':')
  if (rest.length > 0 || groupPart === '') {
    throw new CodedError(
      'invalid-argument',
      `Cannot use the user ${JSON.stringify(user)}: expected "name[:group]" or "uid[:gid]"`,
    )
  }
  const groups = parseGroups(files.group)
  const account = findAccount(userPart || '0', files.passwd)
  const gid = groupPart === undefined ? account.gid : findGroup(groupPart, groups)
  const memberOf = groups.filter(group => group.members.includes(account.name)).map(group => group.gid)
  return {uid: account.uid, gid, additionalGids: [...new Set([gid, ...memberOf])]}
}

function findAccount(user: string, passwd: string): Account {
  const accounts = parsePasswd(passwd)
  const named = accounts.find(account => account.name === user)
  if (named) return named
  const uid = parseId(user)
  if (uid === undefined) {
    throw new CodedError(
      'not-found',
      `Cannot find the user ${JSON.stringify(user)} in the image's "/etc/passwd"`,
    )
  }
  return accounts.find(account => account.uid === uid) ?? {name: '', uid, gid: 0}
}

function findGroup(group: string, groups: readonly Group[]): number {
  const gid = groups.find(({name}) => name === group)?.gid ?? parseId(group)
  if (gid === undefined) {
    throw new CodedError(
      'not-found',
      `Cannot find the group ${JSON.stringify(group)} in the image's "/etc/group"`,
    )
  }
  return gid
}

/** `name:password:uid:gid:…` per line (passwd(5)); other lines are skipped, as every reader of this file does. */
function parsePasswd(text: string): Account[] {
  return text.split('\n').flatMap(line => {
    const [name, , uidText, gidText] = line.trim().split(':')
    const uid = parseId(uidText ?? '')
    const gid = parseId(gidText ?? '')
    return name && uid !== undefined && gid !== undefined ? [{name, uid, gid}] : []
  })
}

/** `name:password:gid:member,member` per line (group(5)). */
function parseGroups(text: string): Group[] {
  return text.split('\n').flatMap(line => {
    const [name, , gidText, members = ''] = line.trim().split(':')
    const gid = parseId(gidText ?? '')
    return name && gid !== undefined ? [{name, gid, members: members.split(',').filter(Boolean)}] : []
  })
}

function parseId(text: string): number | undefined {
  if (!/^[0-9]{1,10}$/.test(text)) return undefined
  const id = Number(text)
  return id <= MAX_ID ? id : undefined
}
