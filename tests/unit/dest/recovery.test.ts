/** Recovery at the destination, against a source made by hand. */
import { expect, test } from "bun:test";
import { PageBitmap } from "../../../src/ram/bitmap.ts";
import { raiseEventDescriptor } from "../../../syscalls/descriptor.ts";
import { Channel } from "../../../src/channel/channel.ts";
import { openListener } from "../../../src/channel/listen.ts";
import {
  attachPageState,
  createDestShared,
  createPageState,
  DestShared,
  WORD,
} from "../../../src/dest/shared.ts";
import { keepIdentity } from "../../../src/dest/identity.ts";
import {
  identityOfText,
  identityPings,
  PONG_OTHER_GUEST,
  PONG_SAME_GUEST,
} from "../../../src/stream/identity.ts";
import { writeCommand } from "../../../src/stream/command.ts";
import type { Command } from "../../../src/stream/command.ts";
import { readReceivedBitmap } from "../../../src/stream/received-bitmap.ts";
import { readReturnPathMessage } from "../../../src/stream/return-path.ts";
import { StreamWriter } from "../../../src/stream/writer.ts";
import { writeBytes } from "../../fixtures/descriptors.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { startThread } from "../../helpers/test-thread.ts";
import type { TestThread } from "../../helpers/test-thread.ts";
import type * as DescriptorsFixture from "../../fixtures/descriptors.ts";
import type * as Fixture from "../../fixtures/recovering.ts";

const PAGE = 4096;
const PAGES = 100;
const BLOCKS = ["pc.ram", "vga.vram"].map((name, index) => {
  return { index, name, length: PAGES * PAGE, pageSize: PAGE, address: 0 };
});

class Bench implements AsyncDisposable {
  readonly data = createDestShared();
  readonly shared = new DestShared(this.data);
  readonly pageData = createPageState(BLOCKS);
  readonly pages = attachPageState(this.pageData, BLOCKS);
  readonly descriptors = new Descriptors();
  readonly stopFd = this.descriptors.event();
  linkTimeoutMs = 30_000;
  sourceIsOurs = true;
  readonly #door = openListener([{ family: "inet", host: "127.0.0.1", port: 0 }]);
  readonly #thread: TestThread<typeof Fixture>;

  private constructor(thread: TestThread<typeof Fixture>) {
    this.#thread = thread;
    this.descriptors.add(this.#door.fd);
  }

  static async open(): Promise<Bench> {
    return new Bench(
      await startThread<typeof Fixture>(import.meta.resolve("../../fixtures/recovering.ts")),
    );
  }

  /** Starts to recover; then the next `count` bytes are read. */
  recover(count = 0, timeoutMs = Infinity): Promise<Awaited<ReturnType<typeof Fixture.recover>>> {
    const [fd] = this.descriptors.pair();
    const { data: shared, pageData: pages, stopFd, linkTimeoutMs, sourceIsOurs } = this;
    const listenFd = this.#door.fd;
    const task = {
      ...{ shared, pages, blocks: BLOCKS, fd, listenFd, stopFd, timeoutMs, linkTimeoutMs },
      sourceIsOurs,
    };
    const running = this.#thread.call("recover", task, count);
    running.catch(() => undefined);
    return running;
  }

  /** A source that comes back and says these commands. */
  source(...commands: Command[]): Channel {
    const fd = this.descriptors.connect(this.#door.address);
    const writer = new StreamWriter();
    for (const command of commands) writeCommand(writer, command);
    if (commands.length > 0) expect(writeBytes(fd, writer.bytes)).toBe(writer.bytes.length);
    const { stopFd } = this;
    const channel = new Channel({ fd, stopFd, peer: "the destination", bufferBytes: 65_536 });
    channel.timeoutMs = 5000;
    return channel;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    raiseEventDescriptor(this.stopFd);
    await this.#thread[Symbol.asyncDispose]();
    this.descriptors[Symbol.dispose]();
  }
}

const ASK: Command[] = BLOCKS.map(({ name }) => ({ kind: "recvBitmap", block: name }));

test("the source hears what is here, and what is waited for is asked for again", async () => {
  await using bench = await Bench.open();
  bench.pages.received[0]?.setRange(10, 50);
  bench.pages.received[1]?.set(99);
  const awaited = bench.pages.requestedAt[0];
  if (awaited === undefined) throw new Error("no block");
  for (const page of [3, 77]) awaited[page] = 1;
  const recovering = bench.recover(3);
  const { reader, fd } = bench.source(...ASK, { kind: "postcopyResume" });
  for (const [index, { name }] of BLOCKS.entries()) {
    expect(readReturnPathMessage(reader)).toEqual({ kind: "receivedBitmap", block: name });
    const bytes = readReceivedBitmap(reader, name, PAGES);
    const received = new PageBitmap(PAGES, bench.pageData.received[index]);
    expect([...bytes]).toEqual([...received.bytes]);
  }
  expect(readReturnPathMessage(reader)).toEqual({ kind: "resumeAck" });
  const request = (block: string | undefined, page: number) => {
    return { kind: "pageRequest" as const, block, start: page * PAGE, length: PAGE };
  };
  expect(readReturnPathMessage(reader)).toEqual(request("pc.ram", 3));
  expect(readReturnPathMessage(reader)).toEqual(request(undefined, 77));
  // The stream goes on over the new connection, under the descriptor of the old one.
  writeBytes(fd, Uint8Array.of(1, 2, 3));
  const { events, next } = await recovering;
  expect(next).toEqual([1, 2, 3]);
  expect(Atomics.load(bench.shared.control, WORD.requestsHeld)).toBe(0);
  expect(events.map((event) => (event.kind === "phase" ? event.phase : event.kind))).toEqual([
    "warning",
    "paused",
    "returned",
    "postcopy",
  ]);
});

test("requests are held back until the source has resumed", async () => {
  await using bench = await Bench.open();
  const recovering = bench.recover();
  const first = bench.source({ kind: "recvBitmap", block: "pc.ram" });
  expect(readReturnPathMessage(first.reader)).toEqual({ kind: "receivedBitmap", block: "pc.ram" });
  expect(Atomics.load(bench.shared.control, WORD.requestsHeld)).toBe(1);
  bench.descriptors.close(first.fd);
  const { reader } = bench.source(...ASK, { kind: "postcopyResume" });
  expect(readReturnPathMessage(reader)).toMatchObject({ kind: "receivedBitmap" });
  const { events } = await recovering;
  // The first try has failed, and was told of.
  expect(events.filter(({ kind }) => kind === "warning")).toHaveLength(2);
});

const VIOLATIONS: [name: string, says: Command[], words: string][] = [
  ["an unknown block", [{ kind: "recvBitmap", block: "no" }], 'the unknown block "no"'],
  [
    "a command of another time",
    [{ kind: "recvBitmap", block: "pc.ram" }, { kind: "postcopyListen" }],
    "POSTCOPY_LISTEN came in a recovery",
  ],
  ["the same question twice", [...ASK, ...ASK], 'asks twice what is here of "pc.ram"'],
  [
    "PINGs without end",
    [...ASK, ...Array.from({ length: 17 }, (_, value): Command => ({ kind: "ping", value }))],
    "more than 16 PINGs in a recovery",
  ],
];

for (const [name, says, words] of VIOLATIONS) {
  test(`a source that comes back with ${name} is refused, and another is waited for`, async () => {
    await using bench = await Bench.open();
    const recovering = bench.recover();
    bench.source(...says);
    bench.source(...ASK, { kind: "postcopyResume" });
    const { events } = await recovering;
    const warnings = events.flatMap((event) => (event.kind === "warning" ? [event.message] : []));
    expect(warnings.join("\n")).toContain(words);
  });
}

test("failed tries without end leave nothing open, and are not told of one by one", async () => {
  const TRIES = 30;
  await using bench = await Bench.open();
  const recovering = bench.recover();
  const silent: Channel[] = [];
  for (let i = 0; i < TRIES; i++) {
    silent.push(bench.source());
    const bad = bench.source({ kind: "recvBitmap", block: "no" });
    // The door is open to the next one only when this one has been turned away.
    expect(() => bad.reader.u8()).toThrow();
  }
  // What stood beside them was closed with them.
  for (const { reader } of silent) expect(() => reader.u8()).toThrow(/closed|reset/);
  const beside = bench.source();
  const { reader } = bench.source(...ASK, { kind: "postcopyResume" });
  expect(readReturnPathMessage(reader)).toMatchObject({ kind: "receivedBitmap" });
  const { events, kept } = await recovering;
  expect(kept).toBe(1);
  expect(beside.fd).toBeGreaterThan(0);
  expect(events.filter(({ kind }) => kind === "phase")).toHaveLength(2);
  expect(events.filter(({ kind }) => kind === "warning").length).toBeLessThan(TRIES);
});

const [OURS, OTHER] = [identityOfText("ours"), identityOfText("another")];

/** A source that tells which guest it has, and goes on. */
function coming(identity: string | undefined): Command[] {
  const told = identity === undefined ? [] : identityPings(identity);
  const pings = told.map((value): Command => ({ kind: "ping", value }));
  return [...ASK, ...pings, { kind: "postcopyResume" }];
}

/** Past the bitmaps, the PONG to the last PING of an identity. */
function verdict({ reader }: Channel): number {
  for (const { name } of BLOCKS) {
    expect(readReturnPathMessage(reader)).toEqual({ kind: "receivedBitmap", block: name });
    readReceivedBitmap(reader, name, PAGES);
  }
  const pongs = identityPings(OURS).map(() => readReturnPathMessage(reader));
  const last = pongs.at(-1);
  return last?.kind === "pong" ? last.value : -1;
}

test("a source of another guest hears it and is turned away; the right one goes on", async () => {
  await using bench = await Bench.open();
  keepIdentity(bench.shared, OURS);
  const recovering = bench.recover();
  const wrong = bench.source(...coming(OTHER));
  expect(verdict(wrong)).toBe(PONG_OTHER_GUEST);
  expect(() => wrong.reader.u8()).toThrow(/closed|reset/);
  // Nor is one believed that says nothing: a QEMU, or an older postcopy.
  const silent = bench.source(...coming(undefined));
  expect(readReturnPathMessage(silent.reader)).toMatchObject({ kind: "receivedBitmap" });
  const right = bench.source(...coming(OURS));
  expect(verdict(right)).toBe(PONG_SAME_GUEST);
  expect(readReturnPathMessage(right.reader)).toEqual({ kind: "resumeAck" });
  const { events } = await recovering;
  const warnings = events.flatMap((event) => (event.kind === "warning" ? [event.message] : []));
  expect(warnings.slice(1)).toEqual([
    "The recovery failed: The source has another guest than the one before",
    "The recovery failed: The source does not say which guest it has, and the one before did",
  ]);
});

test("where nobody has said which guest it is, one of ours goes on with ours alone", async () => {
  // An older one, that told nothing, has been replaced by one that tells.
  await using bench = await Bench.open();
  const recovering = bench.recover();
  const [echo] = identityPings(OURS).slice(-1);
  expect(verdict(bench.source(...coming(OURS)))).toBe(echo ?? -1);
  await recovering;
  await using ofQemu = await Bench.open();
  ofQemu.sourceIsOurs = false;
  const waiting = ofQemu.recover();
  expect(verdict(ofQemu.source(...coming(OURS)))).toBe(PONG_OTHER_GUEST);
  ofQemu.source(...coming(undefined));
  await waiting;
});

test("a source that comes back and falls silent, or dribbles, does not keep the others out", async () => {
  for (const dribbles of [false, true]) {
    await using bench = await Bench.open();
    bench.linkTimeoutMs = 60;
    const recovering = bench.recover();
    const first = bench.source({ kind: "recvBitmap", block: "pc.ram" });
    if (dribbles) {
      const fixture = import.meta.resolve("../../fixtures/descriptors.ts");
      await using dribbler = await startThread<typeof DescriptorsFixture>(fixture);
      const writer = new StreamWriter();
      for (let i = 0; i < 50; i++) writeCommand(writer, { kind: "ping", value: i });
      const pings = writer.bytes.slice();
      expect(await dribbler.call("dribbleOn", first.fd, pings, 5)).toBeLessThan(pings.length);
    }
    const { reader } = bench.source(...ASK, { kind: "postcopyResume" });
    expect(readReturnPathMessage(reader)).toMatchObject({ kind: "receivedBitmap" });
    const { events } = await recovering;
    const warnings = events.flatMap((event) => (event.kind === "warning" ? [event.message] : []));
    expect(warnings.join()).toMatch(
      /The recovery failed: the source did not resume within [\d.]+ ms/,
    );
  }
});

test("whoever gives up waiting does so at once", async () => {
  await using bench = await Bench.open();
  const recovering = bench.recover();
  raiseEventDescriptor(bench.stopFd);
  const failure: unknown = await recovering.catch((error: unknown) => error);
  expect(String(failure)).toContain("Stopped on request");
});

test("a source that does not come back in time is not waited for any longer", async () => {
  for (const timeoutMs of [0, 60]) {
    await using bench = await Bench.open();
    const failure: unknown = await bench.recover(0, timeoutMs).catch((error: unknown) => error);
    expect(String(failure)).toContain("The connection was closed");
  }
});
