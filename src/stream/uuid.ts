/** The identity of a guest (`-uuid`): sixteen bytes in a stream, text for people and in files. */
import { UUID_BYTES } from "./constants.ts";

/** The text of sixteen bytes: "5ca1ab1e-0000-4000-8000-0123456789ab". */
export function uuidText(uuid: Uint8Array): string {
  const hex = Buffer.from(uuid).toString("hex");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** The bytes of such a text. Anything else is a programmer's error. */
export function uuidBytes(text: string): Uint8Array {
  const bytes = new Uint8Array(Buffer.from(text.replaceAll("-", ""), "hex"));
  if (bytes.length !== UUID_BYTES) throw new RangeError(`"${text}" is no UUID`);
  return bytes;
}
