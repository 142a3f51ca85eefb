import {describe, expect, it} from 'vitest'
import {CodedError} from '../../src/lib/errors/coded-error.ts'
import {createOutage} from '../../src/lib/layer/outage.ts'

describe('an outage of a registry', () => {
  const gone = new CodedError('unavailable', 'Cannot reach it')

  it('lets readers wait as long as none has waited in vain', () => {
    expect(createOutage(() => 0).mayWait()).toBe(true)
  })

  it('fails readers at once for some seconds, and then lets them ask once', () => {
    let now = 1000
    const outage = createOutage(() => now)
    outage.begin(gone)
    expect(() => outage.mayWait()).toThrow(gone)
    now += 4999
    expect(() => outage.mayWait()).toThrow(gone)
    now += 1
    expect(outage.mayWait()).toBe(false)
    outage.begin(gone)
    expect(() => outage.mayWait()).toThrow(gone)
  })

  it('is over as soon as something arrives', () => {
    const outage = createOutage(() => 0)
    outage.begin(gone)
    outage.end()
    expect(outage.mayWait()).toBe(true)
  })
})
