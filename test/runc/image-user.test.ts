import {describe, expect, it} from 'vitest'
import {resolveUser} from '../../src/lib/runc/image-user.ts'

const FILES = {
  passwd:
    'root:x:0:0:root:/root:/bin/sh\r\n# comment\nbroken\napp:x:1000:1001::/:\n123:x:7:8::/:\nlast:x:9:9',
  group: 'root:x:0:\nwheel:x:10:root,app\napp:x:1001:\nextra:x:20:app,other\nbad:x:notanumber:app',
}

describe('the user of a workload', () => {
  const check = (user: string, uid: number, gid: number, additionalGids: number[], files = FILES) =>
    it(`${JSON.stringify(user)} is ${uid}:${gid}`, () =>
      expect(resolveUser(user, files)).toEqual({uid, gid, additionalGids}))

  check('', 0, 0, [0, 10])
  check('root', 0, 0, [0, 10])
  check('app', 1000, 1001, [1001, 10, 20])
  check('1000', 1000, 1001, [1001, 10, 20])
  check('app:wheel', 1000, 10, [10, 20])
  check('app:5', 1000, 5, [5, 10, 20])
  check('5000', 5000, 0, [0])
  check('5000:6000', 5000, 6000, [6000])
  // A name may look like a number; names come first.
  check('123', 7, 8, [8])
  check('last', 9, 9, [9])
  check('0', 0, 0, [0], {passwd: '', group: ''})

  const fails = (user: string, code: string, message: string) =>
    it(`${JSON.stringify(user)} is refused`, () =>
      expect(() => resolveUser(user, FILES)).toThrow(
        expect.objectContaining({code, message: expect.stringContaining(message)}),
      ))

  fails('who', 'not-found', '"who"')
  fails('app:none', 'not-found', '"none"')
  fails('app:', 'invalid-argument', 'name[:group]')
  fails('a:b:c', 'invalid-argument', 'name[:group]')
  fails('-1', 'not-found', '"-1"')
  fails('4294967295', 'not-found', '4294967295')
})
