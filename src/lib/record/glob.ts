// Glob patterns with doublestar's meaning: `*` and `?` stay within one path component, `**` as a whole component spans
// any number of them, `[a-z]` `[!a]` `[^a]` are classes, `{a,b}` are alternatives, `\` quotes. Matching simulates a
// non-deterministic automaton, so it takes time proportional to pattern × path whatever the pattern.

import {CodedError} from '../errors/coded-error.ts'

/** A compiled pattern. `literal` is the path it stands for when it has no special characters. */
export interface Glob {
  readonly literal: string | undefined
  matches(path: string): boolean
}

/** Longest pattern accepted, characters: PATH_MAX of Linux. */
export const MAX_GLOB_LENGTH = 4096
/** Deepest nesting of braces; the compiler recurses into them. */
const MAX_BRACE_DEPTH = 16

type Test = (codePoint: number) => boolean
/** A state either consumes one code point and goes on to `next`, or (`test` undefined) goes to all of `to` at once. */
interface State {
  readonly test: Test | undefined
  to: number[]
}

const SLASH = 0x2f

/** Compiles `pattern`; throws `invalid-argument` for an open class or brace, or a lone `\` at the end. */
export function compileGlob(pattern: string): Glob {
  if (pattern.length > MAX_GLOB_LENGTH) {
    throw new CodedError(
      'invalid-argument',
      `Cannot use a pattern of ${pattern.length} characters: the limit is ${MAX_GLOB_LENGTH}`,
    )
  }
  const literal = /[*?[\]{}\\]/.test(pattern) ? undefined : pattern
  if (literal !== undefined) return {literal, matches: path => path === literal}
  const {states, start, accept} = new Compiler(pattern).compile()
  return {literal, matches: path => simulate(states, start, accept, path)}
}

/** Builds the automaton by recursive descent; it lives for one `compile` call. */
class Compiler {
  readonly #points: readonly string[]
  readonly #pattern: string
  readonly #states: State[] = []
  #at = 0

  constructor(pattern: string) {
    this.#pattern = pattern
    this.#points = [...pattern]
  }

  compile(): {states: readonly State[]; start: number; accept: number} {
    const start = this.#add(undefined)
    const end = this.#sequence(start, 0)
    return {states: this.#states, start, accept: end}
  }

  /** Compiles up to the end, or within braces up to `,` or `}`; returns the state that the sequence ends in. */
  #sequence(from: number, depth: number): number {
    let current = from
    while (this.#at < this.#points.length) {
      const point = this.#points[this.#at]!
      if (depth > 0 && (point === ',' || point === '}')) return current
      if (this.#isDoubleStar()) {
        current = this.#doubleStar(current)
        continue
      }
      this.#at++
      if (point === '*') {
        while (this.#points[this.#at] === '*') this.#at++
        current = this.#loop(current, notSlash)
      } else if (point === '?') current = this.#consume(current, notSlash)
      else if (point === '[') current = this.#consume(current, this.#characterClass())
      else if (point === '{') current = this.#alternatives(current, depth + 1)
      else if (point === '\\') current = this.#consume(current, equals(this.#quoted()))
      else current = this.#consume(current, equals(point))
    }
    return current
  }

  /** `**` counts only as a whole path component; elsewhere it is a `*`. */
  #isDoubleStar(): boolean {
    const before = this.#points[this.#at - 1]
    const after = this.#points[this.#at + 2]
    return (
      this.#points[this.#at] === '*' &&
      this.#points[this.#at + 1] === '*' &&
      (before === undefined || before === '/' || before === '{' || before === ',') &&
      (after === undefined || after === '/' || after === '}' || after === ',')
    )
  }

  /** `**` + `/` is any number of whole components; a `**` at the end is everything below. */
  #doubleStar(from: number): number {
    this.#at += 2
    if (this.#points[this.#at] !== '/') return this.#loop(from, () => true)
    this.#at++
    const inside = this.#loop(from, () => true)
    const end = this.#consume(inside, equals('/'))
    this.#states[from]!.to.push(end)
    return end
  }

  #alternatives(from: number, depth: number): number {
    if (depth > MAX_BRACE_DEPTH) throw this.#invalid(`braces are nested more than ${MAX_BRACE_DEPTH} deep`)
    const end = this.#add(undefined)
    for (;;) {
      const branch = this.#add(undefined)
      this.#states[from]!.to.push(branch)
      this.#states[this.#sequence(branch, depth)]!.to.push(end)
      const point = this.#points[this.#at++]
      if (point === '}') return end
      if (point === undefined) throw this.#invalid('a "{" is not closed')
    }
  }

  /** POSIX bracket expression after `[`: ranges, negation by `!` or `^`; a class never matches `/`. */
  #characterClass(): Test {
    const negated = this.#points[this.#at] === '!' || this.#points[this.#at] === '^'
    if (negated) this.#at++
    const ranges: Array<readonly [number, number]> = []
    for (let first = true; ; first = false) {
      const point = this.#points[this.#at++]
      if (point === undefined) throw this.#invalid('a "[" is not closed')
      if (point === ']' && !first) break
      const low = point === '\\' ? this.#quoted() : point
      let high = low
      if (this.#points[this.#at] === '-' && (this.#points[this.#at + 1] ?? ']') !== ']') {
        this.#at++
        const next = this.#points[this.#at++]!
        high = next === '\\' ? this.#quoted() : next
      }
      ranges.push([low.codePointAt(0)!, high.codePointAt(0)!])
    }
    return point => point !== SLASH && ranges.some(([low, high]) => low <= point && point <= high) !== negated
  }

  #quoted(): string {
    const point = this.#points[this.#at++]
    if (point === undefined) throw this.#invalid('it ends in "\\"')
    return point
  }

  #add(test: Test | undefined): number {
    return this.#states.push({test, to: []}) - 1
  }

  #consume(from: number, test: Test): number {
    const state = this.#add(test)
    const end = this.#add(undefined)
    this.#states[from]!.to.push(state)
    this.#states[state]!.to.push(end)
    return end
  }

  #loop(from: number, test: Test): number {
    const state = this.#add(test)
    const end = this.#add(undefined)
    this.#states[from]!.to.push(end)
    this.#states[end]!.to.push(state)
    this.#states[state]!.to.push(end)
    return end
  }

  #invalid(problem: string): CodedError {
    return new CodedError(
      'invalid-argument',
      `Cannot parse the pattern ${JSON.stringify(this.#pattern)}: ${problem}`,
    )
  }
}

function simulate(states: readonly State[], start: number, accept: number, path: string): boolean {
  let current = closure(states, [start])
  for (const char of path) {
    const point = char.codePointAt(0)!
    const next: number[] = []
    for (const index of current) {
      const state = states[index]!
      if (state.test?.(point)) next.push(...state.to)
    }
    if (next.length === 0) return false
    current = closure(states, next)
  }
  return current.has(accept)
}

/** Every state reachable without consuming; each is visited once, which bounds the work per character. */
function closure(states: readonly State[], from: readonly number[]): Set<number> {
  const reached = new Set(from)
  for (const index of reached) {
    const state = states[index]!
    if (state.test === undefined) for (const next of state.to) reached.add(next)
  }
  return reached
}

function notSlash(point: number): boolean {
  return point !== SLASH
}

function equals(char: string): Test {
  const wanted = char.codePointAt(0)!
  return point => point === wanted
}
