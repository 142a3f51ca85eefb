// Digests for people: enough of them to tell one from another, so that lines fit a terminal.

/** `sha256:` and the first 12 digits, as docker shows them. */
export function shortenDigests(text: string): string {
  return text.replace(/\b(sha256:[0-9a-f]{12})[0-9a-f]{52}\b/g, '$1')
}
