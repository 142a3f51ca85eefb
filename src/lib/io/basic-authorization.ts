// Names and passwords in HTTP headers (RFC 7617).

/** The value of an Authorization header. */
export function basicAuthorization({
  username,
  password,
}: {
  readonly username: string
  readonly password: string
}): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
}
