/**
 * Guesses what the other side is when it does not speak QEMU's migration protocol, from the first
 * four bytes it sent. A wrong port or a wrong file is the commonest mistake there is, and "bad
 * magic" helps nobody.
 */
import { COMMAND, SECTION } from "./constants.ts";
import { hex } from "./refuse.ts";

const KNOWN: readonly [prefix: string, what: string][] = [
  ["HTTP", "an HTTP response"],
  ["GET ", "an HTTP request"],
  ["POST", "an HTTP request"],
  ["SSH-", "an SSH server"],
  ['{"QM', "a QMP monitor socket"],
  ["Libv", "a libvirt save file, which has a header of its own before the stream"],
  ["QFI\xfb", "a qcow2 disk image"],
  ["\x7fELF", "an ELF file (a memory dump is no migration stream)"],
  ["\x28\xb5\x2f\xfd", "data compressed with zstd"],
  ["\x1f\x8b", "data compressed with gzip"],
  ["\xfd7zX", "data compressed with xz"],
  ["BZh", "data compressed with bzip2"],
  ["\x16\x03", "a TLS handshake: the peer encrypts"],
  ["\x15\x03", "a TLS alert: the peer encrypts"],
  ["\x11\x22\x33\x44", "a multifd channel of QEMU: the other side has multifd switched on"],
  ["\0\0\0\0", "zeros"],
];

/** What a stream that begins with the bytes of `magic` (a big-endian u32) probably is. */
export function describeForeign(magic: number): string {
  const codes = [magic >>> 24, (magic >>> 16) & 0xff, (magic >>> 8) & 0xff, magic & 0xff];
  const text = String.fromCharCode(...codes);
  for (const [prefix, what] of KNOWN) if (text.startsWith(prefix)) return what;
  if (codes[0] === SECTION.command && codes[1] === 0 && codes[2] === COMMAND.recvBitmap) {
    return "the recovery of a paused migration";
  }
  if (codes.every((code) => (code >= 0x20 && code < 0x7f) || (code >= 0x09 && code <= 0x0d))) {
    return `text (${JSON.stringify(text)})`;
  }
  return `something unknown (${hex(magic)})`;
}
