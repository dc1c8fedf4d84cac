/** IP addresses between their text and the bytes of a struct sockaddr. */

const GROUPS = 8;

/** The 4 bytes of an IPv4 literal ("127.0.0.1"). */
export function parseInet(host: string): number[] {
  return host.split(".").map(Number);
}

/** The text of 4 bytes. */
export function formatInet(bytes: Uint8Array): string {
  return Array.from(bytes).join(".");
}

/** The 16 bytes of an IPv6 literal ("fe80::1", "::ffff:10.0.0.1"), which has no zone ("%eth0"). */
export function parseInet6(host: string): number[] {
  const [head = "", tail] = host.split("::");
  const first = parseGroups(head);
  const last = tail === undefined ? [] : parseGroups(tail);
  const middle = Array<number>(Math.max(0, GROUPS - first.length - last.length)).fill(0);
  return [...first, ...middle, ...last].flatMap((group) => [group >> 8, group & 0xff]);
}

/** The 16-bit groups of a part without "::"; the last may be an IPv4 literal, which makes two. */
function parseGroups(text: string): number[] {
  if (text === "") return [];
  return text.split(":").flatMap((group) => {
    if (!group.includes(".")) return [Number.parseInt(group, 16)];
    const [a = 0, b = 0, c = 0, d = 0] = parseInet(group);
    return [a * 256 + b, c * 256 + d];
  });
}

/**
 * The one text of 16 bytes that RFC 5952 recommends: the first of the longest runs of zero groups
 * as "::", no leading zeros, lower case.
 */
export function formatInet6(bytes: Uint8Array): string {
  const groups: number[] = [];
  for (let at = 0; at < GROUPS * 2; at += 2) {
    groups.push((bytes[at] ?? 0) * 256 + (bytes[at + 1] ?? 0));
  }
  const run = longestZeroRun(groups);
  const text = (part: number[]): string => part.map((group) => group.toString(16)).join(":");
  if (run.length < 2) return text(groups);
  return `${text(groups.slice(0, run.start))}::${text(groups.slice(run.start + run.length))}`;
}

function longestZeroRun(groups: readonly number[]): { start: number; length: number } {
  let longest = { start: 0, length: 0 };
  let start = 0;
  groups.forEach((group, index) => {
    if (group !== 0) start = index + 1;
    else if (index + 1 - start > longest.length) longest = { start, length: index + 1 - start };
  });
  return longest;
}
