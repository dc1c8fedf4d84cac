/** The head of a libvirt save image, as libvirt writes it on a little-endian host. */

export interface LibvirtHead {
  format: "raw" | "gzip" | "bzip2" | "xz" | "lzop" | "zstd" | "sparse";
  xml: string;
  cookie?: string;
  wasRunning?: boolean;
  complete?: boolean;
  bigEndian?: boolean;
  version?: number;
}

const FORMATS: readonly string[] = ["raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse"];
const HEADER_BYTES = 92;
/** What libvirt leaves behind XML and cookie, so that the XML can be edited. */
const ROOM_BYTES = 64 * 1024;

/** Header, XML, cookie and room; the stream comes right behind. */
export function libvirtSave(head: LibvirtHead): Buffer {
  const xml = Buffer.from(`${head.xml}\0`);
  const cookie = head.cookie === undefined ? Buffer.alloc(0) : Buffer.from(`${head.cookie}\0`);
  const header = Buffer.alloc(HEADER_BYTES);
  header.write(head.complete === false ? "LibvirtQemudPart" : "LibvirtQemudSave", "latin1");
  const words = [
    head.version ?? 2,
    xml.length + cookie.length + ROOM_BYTES,
    head.wasRunning === false ? 0 : 1,
    FORMATS.indexOf(head.format),
    head.cookie === undefined ? 0 : xml.length,
  ];
  for (const [i, word] of words.entries()) {
    if (head.bigEndian === true) header.writeUInt32BE(word, 16 + 4 * i);
    else header.writeUInt32LE(word, 16 + 4 * i);
  }
  return Buffer.concat([header, xml, cookie, Buffer.alloc(ROOM_BYTES)]);
}
