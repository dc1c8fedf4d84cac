/**
 * What a RAM record's flags are called, and the refusals of flags and offsets that cannot be:
 * everything about a record's first u64 that is not on the hot path of ram-record.ts.
 */
import { RAM_FLAG } from "./constants.ts";
import { hex, refuse } from "./refuse.ts";

const FLAG_NAMES: readonly [flag: number, name: string][] = [
  [0x001, "FULL"],
  [RAM_FLAG.zero, "ZERO"],
  [RAM_FLAG.memSize, "MEM_SIZE"],
  [RAM_FLAG.page, "PAGE"],
  [RAM_FLAG.endOfSection, "EOS"],
  [RAM_FLAG.continue, "CONTINUE"],
  [RAM_FLAG.xbzrle, "XBZRLE"],
  [RAM_FLAG.hook, "HOOK"],
  [RAM_FLAG.compressPage, "COMPRESS_PAGE"],
  [RAM_FLAG.multifdFlush, "MULTIFD_FLUSH"],
  [RAM_FLAG.run, "RUN"],
];

/** The names of the bits that are set, as they stand in QEMU's source: "ZERO|CONTINUE". */
export function ramFlagNames(flags: number): string {
  const names = FLAG_NAMES.filter(([flag]) => (flags & flag) !== 0).map(([, name]) => name);
  const unknown = FLAG_NAMES.reduce((rest, [flag]) => rest & ~flag, flags);
  if (unknown !== 0 || names.length === 0) names.push(hex(unknown));
  return names.join("|");
}

/** Refuses a record whose flags mean nothing together, or are for other transports. */
export function refuseFlags(flags: number, offset: number): never {
  if ((flags & RAM_FLAG.hook) !== 0) {
    refuse(
      "BAD_FLAGS",
      "A RAM record has the flag HOOK, which only RDMA migration uses",
      offset,
      "Migrate over tcp: or unix:",
    );
  }
  refuse("BAD_FLAGS", `A RAM record has the flags ${ramFlagNames(flags)}`, offset);
}

/** Refuses an offset beside flags that are about no page. */
export function refuseStray(flags: number, at: number, offset: number): never {
  const what = `${ramFlagNames(flags)} with the offset ${hex(at)}`;
  refuse("BAD_VALUE", `A RAM record is ${what}, and can have none`, offset);
}

/** Refuses an offset of 2^53 or more, given by the halves of its u64. */
export function refuseOffset(high: number, low: number, flags: number, offset: number): never {
  const seen = `${hex(high)}${low.toString(16).padStart(8, "0")}`;
  const what = `${ramFlagNames(flags)} at the absurd offset ${seen}`;
  refuse("BAD_VALUE", `A RAM record is ${what}`, offset);
}
