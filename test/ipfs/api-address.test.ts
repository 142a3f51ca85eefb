import {mkdir, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {describe, expect, it} from 'vitest'
import {findIpfsApi, urlOfMultiaddr} from '../../src/lib/ipfs/api-address.ts'
import {temporaryDirectory} from '../support/temporary.ts'

describe('the address of a node', () => {
  for (const [address, url] of [
    ['/ip4/127.0.0.1/tcp/5001', 'http://127.0.0.1:5001/'],
    ['/ip4/127.0.0.1/tcp/5001/http', 'http://127.0.0.1:5001/'],
    ['/ip6/::1/tcp/5001', 'http://[::1]:5001/'],
    ['/dns4/kubo/tcp/80', 'http://kubo/'],
    ['/dns/kubo.example.com/tcp/5001', 'http://kubo.example.com:5001/'],
  ] as const) {
    it(`${address} is ${url}`, () => expect(urlOfMultiaddr(address, 'api').href).toBe(url))
  }

  for (const address of [
    '',
    '127.0.0.1:5001',
    'http://127.0.0.1:5001',
    '/unix/run/ipfs.sock',
    '/ip4/127.0.0.1/tcp/5001/https',
    '/ip4/127.0.0.1/udp/5001/quic',
    '/ip4/127.0.0.1/tcp/99999',
    '/ip4/user@host/tcp/1',
  ]) {
    it(`${JSON.stringify(address)} is refused`, () => {
      expect(() => urlOfMultiaddr(address, '/x/api')).toThrow(/"\/x\/api".*not HTTP over TCP/)
    })
  }

  it('is in IPFS_PATH, else at home', async () => {
    const home = await temporaryDirectory()
    await expect(findIpfsApi({HOME: home})).rejects.toMatchObject({
      code: 'failed-precondition',
      message: expect.stringContaining(`there is no "${home}/.ipfs/api"; start one`),
    })
    await expect(findIpfsApi({})).rejects.toMatchObject({code: 'failed-precondition'})
    await mkdir(join(home, '.ipfs'))
    await writeFile(join(home, '.ipfs/api'), '/ip4/127.0.0.1/tcp/1\n')
    await mkdir(join(home, 'other'))
    await writeFile(join(home, 'other/api'), '/ip4/127.0.0.1/tcp/2')
    expect((await findIpfsApi({HOME: home})).port).toBe('1')
    expect((await findIpfsApi({HOME: home, IPFS_PATH: join(home, 'other')})).port).toBe('2')
  })
})
