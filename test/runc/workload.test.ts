import {describe, expect, it} from 'vitest'
import {parseGpus, parseHostEntry, parseMount} from '../../src/lib/runc/workload.ts'

const invalid = expect.objectContaining({code: 'invalid-argument'})

describe('--mount', () => {
  const check = (text: string, expected: unknown) =>
    it(`reads ${text}`, () => expect(parseMount(text)).toEqual(expected))

  check('type=bind,src=/a,dst=/b,options=rbind:ro', {
    type: 'bind',
    source: '/a',
    destination: '/b',
    options: ['rbind', 'ro'],
  })
  check('type=bind,source=/a,destination=/b', {
    type: 'bind',
    source: '/a',
    destination: '/b',
    options: ['rbind'],
  })
  check('src=/a,target=/b,options=ro', {
    type: 'bind',
    source: '/a',
    destination: '/b',
    options: ['rbind', 'ro'],
  })
  check('type=tmpfs,dst=/t,options=size=1m', {
    type: 'tmpfs',
    source: 'tmpfs',
    destination: '/t',
    options: ['size=1m'],
  })
  check('type=bind,"src=/with,comma","dst=/with""quote"', {
    type: 'bind',
    source: '/with,comma',
    destination: '/with"quote',
    options: ['rbind'],
  })

  for (const text of [
    '',
    'type=bind',
    'src=/a,dst=b',
    'src=a,dst=/b',
    'src=/a,dst=/b,ro',
    'x=1,dst=/b',
    '"src=/a',
  ]) {
    it(`refuses ${JSON.stringify(text)}`, () => {
      expect(() => parseMount(text)).toThrow(invalid)
    })
  }
})

describe('--gpus', () => {
  it('reads all, indices and UUIDs, each once', () => {
    expect(parseGpus('all')).toBe('all')
    expect(parseGpus('0, 2,0')).toEqual(['0', '2'])
    expect(parseGpus('GPU-8dcd427f-483b-b48f-d7e5-75fb19a52b76')).toEqual([
      'GPU-8dcd427f-483b-b48f-d7e5-75fb19a52b76',
    ])
  })

  for (const text of ['', '0,', 'all,1', '../x', 'a b']) {
    it(`refuses ${JSON.stringify(text)}`, () => {
      expect(() => parseGpus(text)).toThrow(invalid)
    })
  }
})

describe('--add-hosts', () => {
  it('reads IPv4 and IPv6 addresses', () => {
    expect(parseHostEntry('db:10.0.0.5')).toEqual({host: 'db', address: '10.0.0.5'})
    expect(parseHostEntry('db:fe80::1%eth0')).toEqual({host: 'db', address: 'fe80::1%eth0'})
    expect(parseHostEntry('db:[::1]')).toEqual({host: 'db', address: '::1'})
  })

  for (const text of ['', 'db', ':10.0.0.1', 'db:', 'a b:1.2.3.4', 'db:host', 'db:1.2.3.4\nx']) {
    it(`refuses ${JSON.stringify(text)}`, () => {
      expect(() => parseHostEntry(text)).toThrow(invalid)
    })
  }
})
