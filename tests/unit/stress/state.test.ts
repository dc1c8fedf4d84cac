import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { checkDescriptors } from "../../../src/guests/stress/descriptors.ts";
import { GuestMemoryError } from "../../../src/guests/stress/mismatch.ts";
import { blockLayout, type StressParameters } from "../../../src/guests/stress/parameters.ts";
import { decodeStressState, encodeStressState } from "../../../src/guests/stress/state-codec.ts";
import { saveStressState, type StressState } from "../../../src/guests/stress/state.ts";
import { StreamReader } from "../../../src/stream/reader.ts";
import { StreamWriter } from "../../../src/stream/writer.ts";
import { StreamError } from "../../../src/util/errors.ts";
import { MEBIBYTE, smallParameters, StressGuest } from "./stress-guest.ts";

const BOOT_ID = "6f9a8b1e-3c55-4a0e-9a57-0d2f5d1c2b3a";

function encode(state: StressState): Uint8Array {
  const writer = new StreamWriter();
  encodeStressState(writer, state);
  return writer.bytes.slice();
}

function decode(bytes: Uint8Array, parameters: StressParameters): StressState {
  return decodeStressState(new StreamReader(bytes, bytes.length), blockLayout(parameters));
}

/** The code of the StreamError that decoding ends with; anything else thrown fails the test. */
function refusal(bytes: Uint8Array, parameters: StressParameters): string {
  try {
    decode(bytes, parameters);
  } catch (thrown) {
    if (thrown instanceof StreamError) return thrown.code;
    throw thrown;
  }
  return "none";
}

function sampleState(changes: Partial<StressParameters> = {}): StressState {
  const parameters = smallParameters({ size: MEBIBYTE, workers: 3, blocks: 2, ...changes });
  const versions = new SharedArrayBuffer(parameters.size / 1024);
  new Uint32Array(versions).set([7, 0x8000_0001, 0xffff_ffff]);
  return {
    parameters,
    stopTime: { monotonicNs: 123_456_789_012_345, bootId: BOOT_ID },
    progress: [1, 2 ** 40 + 1, 0].map((operations) => ({
      operations,
      generator: Uint32Array.of(1, 0xffff_ffff, operations, 4),
    })),
    descriptors: [
      { page: 0, version: 7 },
      { page: 2, version: 0xffff_ffff },
      { page: 255, version: 0 },
    ],
    versions,
  };
}

describe("the codec", () => {
  test("brings back what it was given", () => {
    const share = fc.double({ min: 0, max: 0.5, noNaN: true });
    fc.assert(
      fc.property(share, share, share, share, fc.nat(), (hot, hotShare, zero, discard, rate) => {
        const state = sampleState({
          hotFraction: hot,
          hotShare,
          zeroFraction: zero,
          discardRate: discard,
          rate,
          durationMs: rate % 86_400_000,
        });
        const { versions, ...rest } = decode(encode(state), state.parameters);
        const { versions: given, ...wanted } = state;
        expect(rest).toEqual(wanted);
        expect(new Uint32Array(versions)).toEqual(new Uint32Array(given));
      }),
      { numRuns: 50 },
    );
  });

  test("has the layout that the other version of the program reads", () => {
    const bytes = encode(sampleState());
    const view = new DataView(bytes.buffer);
    expect([0, 4, 8, 12].map((at) => view.getUint32(at))).toEqual([3, 2, 4096, 1]);
    expect(view.getUint32(20)).toBe(MEBIBYTE);
    expect(view.getFloat64(40)).toBe(0.1);
    expect(view.getFloat64(72)).toBe(123_456_789_012_345);
    expect(bytes[80]).toBe(36);
    // The version table is the last: 256 words, little-endian.
    expect(view.getUint32(bytes.length - 1024 - 4)).toBe(256);
    expect(view.getUint32(bytes.length - 1024, true)).toBe(7);
    expect(bytes.length).toBe(72 + 8 + 37 + 3 * 24 + 4 + 3 * 8 + 4 + 1024);
  });

  test("refuses a state that ends early, wherever", () => {
    const state = sampleState();
    const bytes = encode(state);
    fc.assert(
      fc.property(fc.nat(bytes.length - 1), (length) => {
        expect(refusal(bytes.slice(0, length), state.parameters)).toBe("TRUNCATED");
      }),
    );
  });

  test("refuses or survives any damage, never crashes", () => {
    const state = sampleState();
    const bytes = encode(state);
    fc.assert(
      fc.property(fc.nat(200), fc.integer({ min: 1, max: 255 }), (at, bits) => {
        const damaged = bytes.slice();
        damaged[at]! ^= bits;
        expect(refusal(damaged, state.parameters)).toBeOneOf([
          "BAD_STATE",
          "BAD_VALUE",
          "BLOCK_MISMATCH",
          "TRUNCATED",
          "none",
        ]);
      }),
      { numRuns: 3000 },
    );
  });

  const damages: [string, (state: StressState) => void][] = [
    ["no workers", (state) => void (state.parameters.workers = 0)],
    ["a share above 1", (state) => void (state.parameters.hotShare = 1.5)],
    ["a share that is no number", (state) => void (state.parameters.zeroFraction = NaN)],
    ["an endless stop time", (state) => void (state.stopTime.monotonicNs = Infinity)],
    ["a long boot id", (state) => void (state.stopTime.bootId = "x".repeat(65))],
    ["a page beyond the guest", (state) => void (state.descriptors[0]!.page = 256)],
    ["another version than the table", (state) => void (state.descriptors[0]!.version = 8)],
    [
      "too many descriptors",
      (state) => void (state.descriptors = new Array(4097).fill({ page: 3, version: 0 })),
    ],
    ["a short table", (state) => void (state.versions = new SharedArrayBuffer(1020))],
  ];
  test.each(damages)("refuses %s", (_, damage) => {
    const state = sampleState();
    const { parameters } = sampleState();
    damage(state);
    expect(refusal(encode(state), parameters)).toBeOneOf(["BAD_STATE", "TRUNCATED"]);
  });

  test("refuses a table of another guest's length", () => {
    const state = sampleState();
    const bytes = encode(state);
    new DataView(bytes.buffer).setUint32(bytes.length - 1024 - 4, 255);
    expect(refusal(bytes, state.parameters)).toBe("BAD_STATE");
  });

  test("refuses RAM blocks of another name, length, count or order", () => {
    const state = sampleState();
    const bytes = encode(state);
    const blocks = blockLayout(state.parameters);
    const [first, second] = blocks as [(typeof blocks)[0], (typeof blocks)[0]];
    const others = [
      [first],
      [second, first],
      [first, { ...second, name: "pc.ram" }],
      [first, { ...second, length: second.length + 4096 }],
    ];
    for (const other of others) {
      const read = () => decodeStressState(new StreamReader(bytes, bytes.length), other);
      expect(read).toThrow("stress.ram0 of 524288 bytes, stress.ram1 of 524288 bytes; there are");
    }
  });
});

describe("a guest that moves", () => {
  test("from A to B to C goes on as if it had never moved", async () => {
    const parameters = smallParameters({ blocks: 2, workers: 3, discardRate: 0.01 });
    await using a = await StressGuest.create(parameters);
    await a.run(1000);
    let guest = a;
    const operations = [a.control.totals().operations];
    await using stack = new AsyncDisposableStack();
    for (let move = 0; move < 2; move++) {
      const bytes = encode(saveStressState(guest.setup, BOOT_ID));
      const state = decode(bytes, parameters);
      expect(state.stopTime.monotonicNs).toBe(guest.control.runTimes().lastNs);
      const next = await StressGuest.continue(state, guest.memory.copy());
      stack.use(next);
      checkDescriptors(next.world, state.descriptors);
      expect(next.control.progress()).toEqual(guest.control.progress());
      await next.run(1000);
      expect(next.audit()).toEqual({ pagesChecked: 1024, pagesWrong: 0 });
      expect(next.model()).toEqual({ pagesChecked: 1024, pagesWrong: 0, workersAstray: 0 });
      operations.push(next.control.totals().operations);
      guest = next;
    }
    expect(operations).toEqual(operations.toSorted((x, y) => x - y));
    expect(operations.at(-1)).toBeGreaterThanOrEqual(9000);
  });

  test("points at pages of every worker, and a wrong one is found while loading", async () => {
    await using guest = await StressGuest.create(smallParameters());
    await guest.run(1000);
    const { descriptors } = saveStressState(guest.setup, BOOT_ID);
    expect(new Set(descriptors.map(({ page }) => page)).size).toBe(16);
    expect(descriptors.filter(({ page }) => page % 2 === 1)).toHaveLength(8);
    checkDescriptors(guest.world, descriptors);
    guest.world.map.seek(descriptors.at(-1)!.page);
    guest.world.map.window.words[guest.world.map.word + 1023]! ^= 1;
    expect(() => checkDescriptors(guest.world, descriptors)).toThrow(GuestMemoryError);
  });

  test("cannot be saved while it runs", async () => {
    await using guest = await StressGuest.create(smallParameters());
    guest.control.resume();
    expect(() => saveStressState(guest.setup, BOOT_ID)).toThrow("not parked");
  });
});
