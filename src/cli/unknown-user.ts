// Users that the system has no entry for, as Kubernetes and OpenShift give to containers. Node throws when it is asked
// who they are or where their home is, and libraries ask while they load.

import {syncBuiltinESMExports} from 'node:module'
import os from 'node:os'

/** Nothing of ours is ever there: what needs a home reads HOME itself, and says when there is none. */
export const NO_HOME = '/nonexistent'

/** Has Node answer about a user without an entry as containers do; call it before libraries load. */
export function answerForUnknownUsers(): void {
  const {homedir, userInfo} = os
  os.homedir = () => unlessUnknown(homedir, () => NO_HOME)
  os.userInfo = ((options?: os.UserInfoOptions) =>
    unlessUnknown(
      () => userInfo(options as os.UserInfoOptions),
      () => {
        const uid = process.getuid?.() ?? -1
        const gid = process.getgid?.() ?? -1
        return {uid, gid, username: String(uid), homedir: process.env.HOME || NO_HOME, shell: null}
      },
    )) as typeof os.userInfo
  syncBuiltinESMExports()
}

/** `ask`, or `otherwise` where the system has no entry (ERR_SYSTEM_ERROR of uv_os_get_passwd). */
function unlessUnknown<Answer>(ask: () => Answer, otherwise: () => Answer): Answer {
  try {
    return ask()
  } catch {
    return otherwise()
  }
}
