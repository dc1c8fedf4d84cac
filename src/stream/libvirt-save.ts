/**
 * The head of a libvirt save image (`virsh save`, `managedsave`): 92 bytes, the domain's XML, and
 * behind them the migration stream, plain or compressed (libvirt's `virQEMUSaveHeader`):
 *
 *     16 bytes  "LibvirtQemudSave", or "LibvirtQemudPart" while it is being written
 *     u32       version, 2
 *     u32       bytes of data behind these 92: XML, cookie, and room for editing the XML
 *     u32       whether the guest ran when it was saved
 *     u32       format of the stream: see FORMATS
 *     u32       where the cookie (libvirt's own XML) begins in the data; 0 if there is none
 *     14 u32    unused
 *
 * Numbers have the byte order of the host that wrote them.
 */
import { byteString } from "./reader.ts";
import type { StreamReader } from "./reader.ts";
import { refuse } from "./refuse.ts";

/** How the stream lies in the image: libvirt's names, in the order of their numbers. */
const FORMATS = ["raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse"] as const;
/** "sparse" is a plain stream with the capability mapped-ram (libvirt 11.2). */
export type LibvirtFormat = (typeof FORMATS)[number];

/** What the head says. */
export interface LibvirtSave {
  wasRunning: boolean;
  format: LibvirtFormat;
  /** The domain's XML. */
  xml: string;
  /** libvirt's own XML beside it; "" if there is none. */
  cookie: string;
  /** Where the stream begins, counted from the start of the file. */
  bodyAt: number;
}

const MAGIC = "LibvirtQemudSave";
const MAGIC_PARTIAL = "LibvirtQemudPart";
const HEADER_BYTES = 92;
const VERSION_MAX = 2;
/** Version 1 had no compression: what is now its field was unused. */
const VERSION_WITHOUT_FORMAT = 1;
/** Longest XML and cookie accepted; real ones have some tens of KiB, and 64 KiB of room. */
const DATA_BYTES_MAX = 64 * 1024 * 1024;

/** Bytes that `isLibvirtSave` looks at. */
export const LIBVIRT_MAGIC_BYTES = MAGIC.length;

/** Whether a file that begins with these bytes is a save image, complete or not. */
export function isLibvirtSave(head: Uint8Array): boolean {
  if (head.length < LIBVIRT_MAGIC_BYTES) return false;
  const magic = byteString(head, 0, LIBVIRT_MAGIC_BYTES);
  return magic === MAGIC || magic === MAGIC_PARTIAL;
}

/** Reads the head; the reader stands at the first byte of the file, and then at the stream. */
export function readLibvirtSave(reader: StreamReader): LibvirtSave {
  const header = reader.take(HEADER_BYTES);
  const magic = byteString(header, 0, LIBVIRT_MAGIC_BYTES);
  if (magic === MAGIC_PARTIAL) {
    const hint = "libvirt was interrupted while it saved: the image cannot be used";
    refuse("TRUNCATED", "The libvirt save image is incomplete", 0, hint);
  }
  if (magic !== MAGIC) refuse("BAD_MAGIC", "This is no libvirt save image", 0);
  const view = new DataView(header.buffer);
  const little = view.getUint32(16, true) <= VERSION_MAX;
  const word = (index: number): number => view.getUint32(16 + 4 * index, little);
  const version = word(0);
  if (version === 0 || version > VERSION_MAX) {
    refuse("BAD_VERSION", `The libvirt save image has version ${version}, not 1 or 2`, 16);
  }
  const length = word(1);
  if (length === 0 || length > DATA_BYTES_MAX) {
    refuse("BAD_LENGTH", `The XML of the libvirt save image has ${length} bytes`, 20);
  }
  const number = version === VERSION_WITHOUT_FORMAT ? 0 : word(3);
  const format = FORMATS[number];
  if (format === undefined) {
    refuse("BAD_VALUE", `The libvirt save image has the unknown format ${number}`, 28);
  }
  const cookieAt = version === VERSION_WITHOUT_FORMAT ? 0 : word(4);
  if (cookieAt > length) {
    refuse("BAD_LENGTH", `The cookie of the libvirt save image begins at ${cookieAt}`, 32);
  }
  const data = reader.take(length);
  const xmlEnd = cookieAt === 0 ? length : cookieAt;
  return {
    wasRunning: word(2) !== 0,
    format,
    xml: textOf(data.subarray(0, xmlEnd)),
    cookie: cookieAt === 0 ? "" : textOf(data.subarray(cookieAt)),
    bodyAt: HEADER_BYTES + length,
  };
}

/** A string in UTF-8 up to its NUL. */
function textOf(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}
