// Tables of plain text: columns aligned with spaces, as Go's tabwriter makes them for `ctr`, so that scripts can cut them.

/** The lines of a table under its header; each column is as wide as its widest cell and one space. */
export function formatTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [header, ...rows]
  const widths = header.map((_, column) => Math.max(...lines.map(line => (line[column] ?? '').length)))
  return lines.map(line => line.map((cell, column) => cell.padEnd(widths[column]! + 1)).join('')).join('\n')
}
