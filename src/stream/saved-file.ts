/**
 * What a file that was saved begins with: a stream, a libvirt save image, or either of them
 * compressed. The first bytes decide, as the names of such files say nothing.
 */
import type { LibvirtFormat, LibvirtSave } from "./libvirt-save.ts";
import { isLibvirtSave, LIBVIRT_MAGIC_BYTES, readLibvirtSave } from "./libvirt-save.ts";
import type { StreamReader } from "./reader.ts";

/** How a stream is compressed. */
export type Compression = Exclude<LibvirtFormat, "raw" | "sparse">;

/** Where the stream of a file begins, and how it lies there. */
export interface SavedFile {
  compression: Compression | undefined;
  bodyAt: number;
  libvirt: LibvirtSave | undefined;
}

const MAGICS: readonly [Compression, magic: readonly number[]][] = [
  ["gzip", [0x1f, 0x8b]],
  ["bzip2", [0x42, 0x5a, 0x68]],
  ["xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
  ["lzop", [0x89, 0x4c, 0x5a, 0x4f, 0x00]],
  ["zstd", [0x28, 0xb5, 0x2f, 0xfd]],
];

/**
 * Looks at what a file begins with. The reader stands at the first byte, and afterwards where the
 * body begins. A file that is nothing known is taken for a stream, whose own reading refuses it
 * with what it looks like.
 */
export function readSavedFile(reader: StreamReader): SavedFile {
  reader.ensure(LIBVIRT_MAGIC_BYTES);
  const { pos } = reader;
  if (isLibvirtSave(reader.bytes.subarray(pos, pos + LIBVIRT_MAGIC_BYTES))) {
    const libvirt = readLibvirtSave(reader);
    const { format, bodyAt } = libvirt;
    const plain = format === "raw" || format === "sparse";
    return { compression: plain ? undefined : format, bodyAt, libvirt };
  }
  const known = MAGICS.find(([, magic]) =>
    magic.every((byte, i) => reader.bytes[pos + i] === byte),
  );
  return { compression: known?.[0], bodyAt: 0, libvirt: undefined };
}
