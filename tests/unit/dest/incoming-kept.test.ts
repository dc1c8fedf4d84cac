/** A guest that completes in precopy at a destination that keeps it: whose it is, and when. */
import { describe, expect, test } from "bun:test";
import type { DestGuest } from "../../../src/dest/guest.ts";
import { FATE, refuseGuest } from "../../../src/dest/refusal.ts";
import type { DestShared } from "../../../src/dest/shared.ts";
import { WORD } from "../../../src/dest/shared.ts";
import { scanPackageTail } from "../../../src/stream/package.ts";
import { StreamError } from "../../../src/util/errors.ts";
import {
  advise,
  bytesOf,
  description,
  discard,
  eof,
  listen,
  opening,
  ramEnd,
  ramStart,
  unknownDevice,
  zeroPages,
} from "../../helpers/hand-made-stream.ts";
import type { Piece } from "../../helpers/hand-made-stream.ts";
import { CHOSEN, IncomingBench, MEMORY, START } from "../../helpers/incoming-bench.ts";

/** A guest that is kept, and does `atTheEnd` before it is. */
function keepAnyGuest(life: string[], atTheEnd: () => void = () => {}): Partial<DestGuest> {
  const keep = (bytes: Uint8Array, text = "nothing"): void => {
    life.push(`package of ${scanPackageTail(bytes).devicesEnd} bytes, described by ${text}`);
  };
  const finish = (commit: () => void): void => {
    atTheEnd();
    commit();
    life.push("is whole");
  };
  return { devices: { kind: "opaque", keep }, finish };
}

describe("a guest that completes in precopy and is kept", () => {
  const DEVICES: readonly Piece[] = [unknownDevice(3, "cpu", 1, 2), unknownDevice(4, "pci", 9)];
  const MEMORY_ONLY: readonly Piece[] = [ramStart(), ramEnd(zeroPages())];
  const END: readonly Piece[] = [...DEVICES, eof, description("cpu", "pci")];
  const packageEnd = bytesOf(listen, ...DEVICES).length;
  const told = (shared: DestShared): number => Atomics.load(shared.control, WORD.fate);

  function keeping(atTheEnd?: () => void): IncomingBench {
    const bench = new IncomingBench();
    Object.assign(bench.context.guest, keepAnyGuest(bench.life, atTheEnd));
    return bench;
  }

  test("is whole with its description, and then the source is told", () => {
    using bench = keeping();
    bench.feed(...START, advise(), ...MEMORY_ONLY, ...END);
    expect(bench.run()).toEqual({ completedIn: "precopy" });
    const [kept = "", ...rest] = bench.life;
    expect(kept).toStartWith(`package of ${packageEnd} bytes, described by {"page_size":4096,`);
    expect(rest).toEqual(["is whole"]);
    expect(bench.sent).toEqual([{ kind: "shut", status: 0 }]);
    expect(bench.events).not.toContainEqual({ kind: "running" });
    expect(bench.context.channel.timeoutMs).toBe(Infinity);
  });

  test("needs neither ADVISE nor a way back", () => {
    using bench = keeping();
    bench.feed(opening(), ...MEMORY_ONLY, ...END);
    expect(bench.run()).toEqual({ completedIn: "precopy" });
    expect(bench.life).toHaveLength(2);
    expect(bench.sent).toEqual([]);
  });

  test("needs no description of a source that closes", () => {
    using bench = keeping();
    bench.feed(opening(), ...MEMORY_ONLY, ...DEVICES, eof).hangUp();
    expect(bench.run()).toEqual({ completedIn: "precopy" });
    expect(bench.life[0]).toBe(`package of ${packageEnd} bytes, described by nothing`);
  });

  test("without a description of one that stays is refused after a while", () => {
    using bench = keeping();
    bench.context.linkTimeoutMs = 30;
    bench.feed(...START, ...MEMORY_ONLY, ...DEVICES, eof);
    expect(() => bench.run()).toThrow("sends no description of its device state");
    expect(bench.sent.at(-1)).toEqual({ kind: "shut", status: 1 });
    expect(bench.life).toEqual([]);
  });

  test("is refused when the source falls silent, or goes, within device state", () => {
    for (const goes of [true, false]) {
      using bench = keeping();
      bench.context.linkTimeoutMs = 30;
      bench.feed(...START, ...MEMORY_ONLY, ...DEVICES, eof, (writer) => writer.u8(6));
      if (goes) bench.hangUp();
      expect(() => bench.run()).toThrow(goes ? "The stream ends within" : "sent nothing for 30 ms");
      expect(bench.life).toEqual([]);
    }
  });

  test("stays the source's when it cannot be made durable", () => {
    using bench = keeping(() => {
      throw new StreamError("NO_SPACE", "No space");
    });
    bench.feed(...START, ...MEMORY_ONLY, ...END);
    expect(() => bench.run()).toThrow("No space");
    expect(told(bench.shared)).toBe(FATE.told);
    expect(bench.sent).toEqual([{ kind: "shut", status: 1 }]);
  });

  test("stays the source's when it is given up before it is named", () => {
    const refuse = { now: (): unknown => undefined };
    using bench = keeping(() => refuse.now());
    refuse.now = () => refuseGuest(bench.shared);
    bench.feed(...START, ...MEMORY_ONLY, ...END);
    expect(() => bench.run()).toThrow("Stopped on request");
    expect(bench.life).toHaveLength(1);
    expect(bench.sent).toEqual([{ kind: "shut", status: 1 }]);
  });

  test("goes on at a source that cannot be told that it is whole", () => {
    using bench = new IncomingBench(({ kind }) => kind === "shut");
    Object.assign(bench.context.guest, keepAnyGuest(bench.life));
    bench.feed(...START, ...MEMORY_ONLY, ...END);
    expect(bench.run()).toEqual({ completedIn: "precopy" });
    expect(bench.warnings).toEqual([
      "The source was not told that the guest is whole here, and lets it go on: The link broke",
    ]);
  });

  test("may not have discarded anything", () => {
    using bench = keeping();
    bench.feed(...START, advise(), ramStart(), discard(), ramEnd(zeroPages()), ...END);
    expect(() => bench.run()).toThrow("The stream ended in state DISCARD");
  });

  test("has no command behind its memory", () => {
    using bench = keeping();
    bench.feed(...START, advise(), ...MEMORY_ONLY, discard(), ...END);
    const what = "POSTCOPY_RAM_DISCARD came after guest memory had ended";
    expect(() => bench.run()).toThrow(what);
  });

  test("is none of this program's own guests, and none without devices", () => {
    using ours = keeping();
    ours.feed(...START, ...CHOSEN, ...MEMORY_ONLY, ...DEVICES, eof);
    expect(() => ours.run()).toThrow("this program's own guests cannot be kept that way");
    using bare = keeping();
    bare.feed(...START, ...MEMORY);
    expect(() => bare.run()).toThrow("The stream ended without the guest's device state");
  });

  test("has no device ahead of its memory", () => {
    using bench = keeping();
    bench.feed(...START, unknownDevice(1, "virtio-mem-device-early"), ...MEMORY_ONLY);
    expect(() => bench.run()).toThrow(
      'The state of "virtio-mem-device-early" comes before the end',
    );
  });
});
