// Work that runs ahead in parallel, with results in order and a bound on how much is under way.

export interface OrderedMapOptions<Item> {
  /** What an item weighs, in any unit: bytes of memory, or 1. */
  readonly weightOf: (item: Item) => number
  /** The weight of what may be started and not yet taken; a heavier item runs alone. */
  readonly maxWeight: number
}

/**
 * Calls `work` on each item and yields the results in the order of the items. When the consumer stops, or a call fails,
 * no further call starts, and those under way are waited for before the generator ends, so that what they use can be
 * released.
 */
export async function* mapOrdered<Item, Result>(
  items: Iterable<Item>,
  work: (item: Item) => Promise<Result>,
  options: OrderedMapOptions<Item>,
): AsyncGenerator<Result> {
  // A map, which keeps its order, because taking the first of a long array moves all others.
  const underWay = new Map<number, {readonly result: Promise<Result>; readonly weight: number}>()
  let weightUnderWay = 0
  let started = 0
  let taken = 0
  async function takeFirst(): Promise<Result> {
    const {result, weight} = underWay.get(taken)!
    underWay.delete(taken++)
    weightUnderWay -= weight
    return result
  }
  try {
    for (const item of items) {
      const weight = options.weightOf(item)
      while (underWay.size > 0 && weightUnderWay + weight > options.maxWeight) yield await takeFirst()
      const result = work(item)
      // A failure is thrown when its turn comes; until then it must not count as unhandled.
      result.catch(() => {})
      underWay.set(started++, {result, weight})
      weightUnderWay += weight
    }
    while (underWay.size > 0) yield await takeFirst()
  } finally {
    await Promise.allSettled([...underWay.values()].map(({result}) => result))
  }
}
