/**
 * Fields written in place, without allocation: what the hot paths (RAM records, page requests) use
 * where everything else uses a StreamWriter.
 */

const TWO_32 = 0x1_0000_0000;

/** Writes a safe integer as a big-endian u64. */
export function putU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / TWO_32));
  view.setUint32(at + 4, value >>> 0);
}

/** Writes a u8 length and one byte a character; returns the bytes written, at most 256. */
export function putStr8(bytes: Uint8Array, at: number, text: string): number {
  bytes[at] = text.length;
  for (let i = 0; i < text.length; i++) bytes[at + 1 + i] = text.charCodeAt(i);
  return 1 + text.length;
}
