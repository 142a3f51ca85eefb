// "Did you mean": the known name that is closest to what was typed.

/** Letters from which on a beginning is taken for the whole name. */
const SHORTEST_BEGINNING = 3

/**
 * The closest of `names` by edit distance, or the one that begins so; undefined when none is near enough to be a slip of
 * the fingers.
 */
export function closestName(typed: string, names: readonly string[]): string | undefined {
  const longer = typed.length < SHORTEST_BEGINNING ? [] : names.filter(name => name.startsWith(typed))
  if (longer.length === 1) return longer[0]
  let best: {readonly name: string; readonly distance: number} | undefined
  for (const name of names) {
    const distance = editDistance(typed, name)
    if (best === undefined || distance < best.distance) best = {name, distance}
  }
  return best && best.distance <= Math.max(1, Math.floor(typed.length / 3)) ? best.name : undefined
}

/** Fewest insertions, deletions, substitutions and swaps of neighbours that make `from` into `to`. */
export function editDistance(from: string, to: string): number {
  // Rows of the usual table: two back, one back, current.
  let before: number[] = []
  let previous = Array.from({length: to.length + 1}, (_, column) => column)
  for (let row = 1; row <= from.length; row += 1) {
    const current = [row]
    for (let column = 1; column <= to.length; column += 1) {
      const same = from[row - 1] === to[column - 1]
      let cost = Math.min(
        previous[column]! + 1,
        current[column - 1]! + 1,
        previous[column - 1]! + (same ? 0 : 1),
      )
      const swapped =
        row > 1 && column > 1 && from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1]
      if (swapped) cost = Math.min(cost, before[column - 2]! + 1)
      current.push(cost)
    }
    before = previous
    previous = current
  }
  return previous[to.length]!
}
