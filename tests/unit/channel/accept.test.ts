import { describe, expect, test } from "bun:test";
import { POLL, PollSet, raiseEventDescriptor } from "../../../syscalls/descriptor.ts";
import { readInto } from "../../../syscalls/io.ts";
import { mapScratch } from "../../../syscalls/memory.ts";
import { StoppedError } from "../../../src/channel/channel.ts";
import { Door } from "../../../src/channel/accept.ts";
import { LimitedWarnings } from "../../../src/channel/limited-warnings.ts";
import { MULTIFD_CHANNELS_MAX } from "../../../src/stream/constants.ts";
import { openListener } from "../../../src/channel/listen.ts";
import { writeCommand } from "../../../src/stream/command.ts";
import { bytesOf } from "../../helpers/hand-made-stream.ts";
import { writeBytes } from "../../fixtures/descriptors.ts";
import { Hall } from "../../helpers/hall.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";
import { startThread } from "../../helpers/test-thread.ts";
import { startWatchdog } from "../../helpers/watchdog.ts";
import type * as ChannelEndsFixture from "../../fixtures/channel-ends.ts";

/** "QEVM", version 3, and something behind it. */
const OPENING = Uint8Array.of(0x51, 0x45, 0x56, 0x4d, 0, 0, 0, 3, 7);
const RECOVERY = bytesOf((writer) => writeCommand(writer, { kind: "recvBitmap", block: "a" }));
const MULTIFD = Uint8Array.of(0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1);
const STRANGER = new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n");
const TURNED_AWAY = "A connection that is not a QEMU migration stream was turned away";

const scratch = mapScratch(64);

/** What can be read from an accepted connection now. */
function received(fd: number): number[] {
  const got = readInto(fd, scratch.address, scratch.bytes.length);
  return [...scratch.bytes.subarray(0, Math.max(0, got))];
}

/** Whether an accepted connection is the other end of `fd`. */
function isPeerOf(accepted: number, fd: number): boolean {
  writeBytes(fd, Uint8Array.of(0x7b));
  const poll = new PollSet();
  poll.add(accepted, POLL.POLLIN);
  return poll.wait(2000) === 1 && received(accepted).at(-1) === 0x7b;
}

describe("the migration is found", () => {
  test("alone, with its bytes untouched", async () => {
    await using watchdog = await startWatchdog();
    using door = new Hall();
    const source = door.connect(OPENING);
    const { main, others } = door.accept(watchdog.stopFd);
    expect(others).toEqual([]);
    expect(received(main)).toEqual([...OPENING]);
    expect(isPeerOf(main, source)).toBe(true);
    expect(door.warnings).toEqual([]);
  });

  test("beside a silent connection, in any order of the two", async () => {
    await using watchdog = await startWatchdog();
    for (const silentFirst of [true, false]) {
      using door = new Hall();
      const silent = silentFirst ? door.connect() : -1;
      const source = door.connect(silentFirst ? OPENING : new Uint8Array());
      const later = silentFirst ? silent : door.connect();
      if (!silentFirst) writeBytes(source, OPENING);
      const { main, others } = door.accept(watchdog.stopFd);
      expect(isPeerOf(main, source)).toBe(true);
      // The silent one is with us already, or still in the backlog for the urgent channel's thread.
      for (const other of others) expect(isPeerOf(other, later)).toBe(true);
      if (silentFirst) expect(others).toHaveLength(1);
      expect(door.warnings).toEqual([]);
    }
  });

  test("behind its multifd channels, which are kept aside untouched", async () => {
    await using watchdog = await startWatchdog();
    using door = new Hall();
    const channels = [door.connect(MULTIFD), door.connect(MULTIFD)];
    const silent = door.connect();
    // Whoever hangs up is no channel: it is turned away even while the source is awaited.
    door.descriptors.close(door.connect(MULTIFD));
    const source = door.connect();
    const { main, others } = door.accept(watchdog.stopFd, () => writeBytes(source, OPENING));
    expect(isPeerOf(main, source)).toBe(true);
    expect(door.warnings).toEqual([TURNED_AWAY]);
    expect(others).toHaveLength(3);
    expect(isPeerOf(others[0] ?? -1, silent)).toBe(true);
    for (const other of others.slice(1)) expect(received(other)).toEqual([...MULTIFD]);
    for (const fd of channels) {
      expect(others.slice(1).some((other) => isPeerOf(other, fd))).toBe(true);
    }
  });

  test("behind more multifd channels than are taken: one too many is kept to say so", async () => {
    await using watchdog = await startWatchdog();
    using door = new Hall();
    // Not more at a time than may be silent: each is one until it has been looked at.
    let channels = 0;
    const more = (): void => {
      for (let i = 0; i < 8 && channels < MULTIFD_CHANNELS_MAX + 2; i++) {
        door.connect(MULTIFD);
        channels++;
      }
    };
    more();
    door.connect(STRANGER);
    const { others } = door.accept(watchdog.stopFd, () => {
      if (channels === MULTIFD_CHANNELS_MAX + 2) door.connect(OPENING);
      else {
        more();
        door.connect(STRANGER);
      }
    });
    expect(others).toHaveLength(MULTIFD_CHANNELS_MAX + 1);
  });

  test("where one that goes on is waited for, behind one that begins anew, which is said", async () => {
    await using watchdog = await startWatchdog();
    using door = new Hall();
    door.connect(OPENING);
    const going = (): number => door.connect(RECOVERY);
    const { main } = door.accept(watchdog.stopFd, going, Door.forRecovery);
    expect(received(main)).toEqual([...RECOVERY]);
    expect(door.warnings).toEqual([
      "A source that begins anew was turned away: the rest of a guest is waited for, which --resume sends",
    ]);
  });

  test("behind a source that goes on with what is not here, which is said", async () => {
    await using watchdog = await startWatchdog();
    using door = new Hall();
    door.connect(RECOVERY);
    const source = door.connect(OPENING);
    const { main } = door.accept(watchdog.stopFd);
    expect(isPeerOf(main, source)).toBe(true);
    expect(door.warnings).toEqual([
      "A source that goes on with a guest (--resume) was turned away: this dest has no part of one",
    ]);
  });

  test("behind strangers, who are turned away with a warning each", async () => {
    await using watchdog = await startWatchdog();
    using door = new Hall();
    const strangers = [STRANGER, Uint8Array.of(0x51, 0x45, 0x56, 0x4e), Uint8Array.of(0)].map(
      (bytes) => door.connect(bytes),
    );
    const source = door.connect(OPENING);
    const { main, others } = door.accept(watchdog.stopFd);
    expect(isPeerOf(main, source)).toBe(true);
    expect(others).toEqual([]);
    expect(door.warnings).toEqual([TURNED_AWAY, TURNED_AWAY, TURNED_AWAY]);
    const poll = new PollSet();
    const slots = strangers.map((fd) => poll.add(fd, POLL.POLLIN));
    poll.wait(5000);
    // They see the end, or a reset where what they sent was not read.
    for (const [i, slot] of slots.entries()) {
      expect(poll.ready(slot)).not.toBe(0);
      expect(received(strangers[i] ?? -1)).toEqual([]);
    }
  });

  test("when its first bytes come one by one", async () => {
    await using watchdog = await startWatchdog();
    using door = new Hall();
    const source = door.connect(OPENING.subarray(0, 1));
    let sent = 1;
    // Each stranger is turned away while the source is known to have been looked at.
    door.connect(STRANGER);
    const { main } = door.accept(watchdog.stopFd, () => {
      writeBytes(source, OPENING.subarray(sent, sent + 1));
      sent++;
      if (sent < 5) door.connect(STRANGER);
    });
    expect(received(main)).toEqual([...OPENING.subarray(0, sent)]);
    expect(sent).toBeGreaterThanOrEqual(4);
  });

  test("behind one who begins like it and hangs up", async () => {
    await using watchdog = await startWatchdog();
    using door = new Hall();
    for (let count = 1; count < 4; count++) {
      door.descriptors.close(door.connect(OPENING.subarray(0, count)));
    }
    // The source speaks only when all three are gone: waiting for more of them would not end.
    const source = door.connect();
    const { main, others } = door.accept(watchdog.stopFd, () => {
      if (door.warnings.length === 3) writeBytes(source, OPENING);
    });
    expect(isPeerOf(main, source)).toBe(true);
    expect(others).toEqual([]);
  });

  test("behind one who says nothing and hangs up, which is worth no warning", async () => {
    await using watchdog = await startWatchdog();
    using door = new Hall();
    door.descriptors.close(door.connect());
    door.connect(OPENING);
    const { others } = door.accept(watchdog.stopFd);
    expect(others).toEqual([]);
    expect(door.warnings).toEqual([]);
  });

  test("over a unix socket", async () => {
    await using watchdog = await startWatchdog();
    await using directory = new TemporaryDirectory("accept");
    using door = new Hall(openListener([{ family: "unix", path: directory.file("socket") }]));
    door.connect(STRANGER);
    const source = door.connect(OPENING);
    const { main } = door.accept(watchdog.stopFd);
    expect(isPeerOf(main, source)).toBe(true);
    expect(door.warnings).toEqual([TURNED_AWAY]);
  });
});

describe("while nobody speaks", () => {
  test("sixteen are kept, and the oldest makes room for each further one", async () => {
    await using watchdog = await startWatchdog();
    using door = new Hall();
    const silent = Array.from({ length: 16 }, () => door.connect());
    door.connect();
    const { main, others } = door.accept(watchdog.stopFd, () => {
      if (door.warnings.length === 1) door.connect();
      else writeBytes(silent[9] ?? -1, OPENING);
    });
    expect(isPeerOf(main, silent[9] ?? -1)).toBe(true);
    expect(others).toHaveLength(15);
    const warning = "More than 16 silent connections: the oldest was dropped";
    expect(door.warnings).toEqual([warning, warning]);
    for (const fd of silent.slice(0, 2)) expect(readInto(fd, scratch.address, 1)).toBe(0);
  });

  test("a thousand bar nobody's way, and are not told of one by one", async () => {
    await using watchdog = await startWatchdog();
    using door = new Hall();
    for (let i = 0; i < 1000; i++) door.connect(i % 2 === 0 ? undefined : STRANGER);
    const source = door.connect(OPENING);
    const { main, others } = door.accept(watchdog.stopFd);
    expect(isPeerOf(main, source)).toBe(true);
    expect(others).toHaveLength(15);
    expect(door.warnings).toHaveLength(20);
    expect(door.warnings.at(-1)).toEndWith("(more within a minute are only counted)");
  });

  test("the oldest makes room too when no descriptor is left for the next one", () => {
    const script = Bun.fileURLToPath(import.meta.resolve("../../fixtures/full-door.ts"));
    const limited = 'ulimit -n 128 && exec "$0" "$1"';
    const { stdout, stderr } = Bun.spawnSync(["sh", "-c", limited, process.execPath, script]);
    expect(stderr.toString()).toBe("");
    const warning = "No descriptor is left for a further connection: the oldest was dropped";
    expect(JSON.parse(stdout.toString())).toEqual({ others: [], said: [warning] });
  });

  test("one door is opened again and again, and keeps nobody from before", async () => {
    await using watchdog = await startWatchdog();
    using hall = new Hall();
    const { fd: listenFd } = hall.listener;
    const warnings = new LimitedWarnings(() => undefined);
    const { stopFd } = watchdog;
    const entrance = { listenFd, stopFd, allow: [], linkTimeoutMs: 30_000, warnings };
    const door = Door.forMigration(entrance);
    const silent = hall.connect();
    expect(door.open(50)).toBeUndefined();
    expect(readInto(silent, scratch.address, 1)).toBe(0);
    for (let i = 0; i < 3; i++) {
      hall.connect();
      const source = hall.connect(OPENING);
      const { main = -1, others = [] } = door.open(Infinity) ?? {};
      for (const fd of [main, ...others]) hall.descriptors.add(fd);
      expect(isPeerOf(main, source)).toBe(true);
      expect(others).toHaveLength(1);
    }
  });

  test("a stop ends the waiting, and closes what had been accepted", async () => {
    const fixture = import.meta.resolve("../../fixtures/channel-ends.ts");
    await using end = await startThread<typeof ChannelEndsFixture>(fixture);
    using door = new Hall();
    const stopFd = door.descriptors.event();
    const silent = door.connect();
    const accepting = end.call("accept", door.listener.fd, stopFd);
    // A stranger who has been turned away shows that the silent one has been accepted before.
    const stranger = door.connect(STRANGER);
    const poll = new PollSet();
    const slot = poll.add(stranger, POLL.POLLIN);
    expect(poll.wait(5000)).toBe(1);
    raiseEventDescriptor(stopFd);
    const failure: unknown = await accepting.catch((error: unknown) => error);
    expect(String(failure)).toBe("StoppedError: Stopped on request");
    poll.set(slot, silent, POLL.POLLIN);
    expect(poll.wait(5000)).toBe(1);
    expect(readInto(silent, scratch.address, 1)).toBe(0);
  });

  test("a stop that came before is not overlooked for a migration that waits", () => {
    using door = new Hall();
    const stopFd = door.descriptors.event();
    raiseEventDescriptor(stopFd);
    door.connect(OPENING);
    expect(() => door.accept(stopFd)).toThrow(StoppedError);
  });
});
