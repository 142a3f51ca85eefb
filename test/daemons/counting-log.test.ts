import {expect, it} from 'vitest'
import {countingRepetitions} from '../../src/daemons/lazy-layers/counting-log.ts'

it('tells once what happens again and again, and later how often', () => {
  let now = 0
  const told: unknown[] = []
  const tell = (fields: unknown, message: string) => void told.push([message, fields])
  const log = countingRepetitions({info: tell, debug: tell, warn: tell}, () => now)
  for (; now < 90_000; now += 10) {
    log.warn({device: 'a', offset: now}, 'cannot read')
    if (now === 500) log.warn({device: 'b'}, 'cannot read')
    if (now === 500) log.warn({device: 'a'}, 'cannot write')
  }
  expect(told).toEqual([
    ['cannot read', {device: 'a', offset: 0}],
    ['cannot read', {device: 'b'}],
    ['cannot write', {device: 'a'}],
    ['cannot read', {device: 'a', offset: 60_000, repeated: 5999}],
  ])
})

it('passes on all that is no warning', () => {
  const told: string[] = []
  const tell = (_: unknown, message: string) => void told.push(message)
  const log = countingRepetitions({info: tell, debug: tell, warn: tell})
  for (let time = 0; time < 2; time++) {
    log.info({}, 'info')
    log.debug({}, 'debug')
  }
  expect(told).toEqual(['info', 'debug', 'info', 'debug'])
})
