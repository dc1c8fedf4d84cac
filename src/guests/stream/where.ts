/**
 * Where the newest content of a page lies, as one number: most pages of a stream lie in it as they
 * are, and are served from there.
 *
 *      0         zeros, or never sent, which is the same for memory that nobody has written
 *      n > 0     in the file, at byte n; nothing lies at its first byte but the magic
 *      n < 0     decoded, in the side file at byte -n - 1
 *      Infinity  discarded, and not sent again so far
 */
export const ZERO_PAGE = 0;
export const MISSING_PAGE = Infinity;

/** Bytes of tables that a page takes: where it lies (f64), and its checksum (u32). */
export const BYTES_A_PAGE = 12;

/** The number of a page that lies in the side file at `offset`. */
export function inSideFile(offset: number): number {
  return -offset - 1;
}

/** Where in the side file the page of such a number lies. */
export function sideOffset(where: number): number {
  return -where - 1;
}
