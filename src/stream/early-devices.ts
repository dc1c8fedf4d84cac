/**
 * Devices whose state comes ahead of memory (QEMU's `early_setup`, since 8.1; virtio-mem is one): a
 * FULL section between those of RAM. Its body has no length, and what follows is no other device,
 * so its end is where its footer stands in front of something that can follow.
 */
import { COMMAND, SECTION } from "./constants.ts";
import type { StreamReader } from "./reader.ts";
import { refuse } from "./refuse.ts";

/** Longest body looked through; a bitmap of 1 TiB of memory in blocks of 2 MiB has 64 KiB. */
const BODY_BYTES_MAX = 512 * 1024;
const FOOTER_BYTES = 5;
/** What is looked at of that which follows: a byte, an id, the length and the first of a name. */
const NEXT_BYTES = 7;
/** Numbers of commands are small; the greatest that there is. */
const COMMAND_MAX = COMMAND.switchoverStart;

/**
 * Leaves out the body and the footer of the section `sectionId`, before which the reader stands.
 * `ramId` is the number of RAM's section, if it has begun.
 */
export function skipEarlyDevice(
  reader: StreamReader,
  sectionId: number,
  ramId: number | undefined,
): void {
  const at = reader.offset;
  for (let looked = 0; looked < BODY_BYTES_MAX; looked++) {
    if (reader.available < looked + FOOTER_BYTES + NEXT_BYTES) {
      reader.ensure(looked + FOOTER_BYTES + NEXT_BYTES);
    }
    const { bytes, view, pos } = reader;
    const footer = pos + looked;
    if (bytes[footer] !== SECTION.footer || view.getUint32(footer + 1) !== sectionId) continue;
    if (!canFollow(reader, footer + FOOTER_BYTES, ramId)) continue;
    reader.pos = footer + FOOTER_BYTES;
    return;
  }
  refuse("BAD_FOOTER", `Section ${sectionId} does not end in ${BODY_BYTES_MAX} bytes`, at);
}

/** Whether a section or a command can begin at `at`. */
function canFollow({ bytes, view }: StreamReader, at: number, ramId: number | undefined): boolean {
  switch (bytes[at]) {
    case SECTION.start:
    case SECTION.full: {
      const first = bytes[at + 6] ?? 0;
      return bytes[at + 5] !== 0 && first >= 0x20 && first <= 0x7e;
    }
    case SECTION.part:
    case SECTION.end:
      return view.getUint32(at + 1) === ramId;
    case SECTION.command: {
      const number = view.getUint16(at + 1);
      return number > 0 && number <= COMMAND_MAX;
    }
    default:
      return false;
  }
}
