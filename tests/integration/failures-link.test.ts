/**
 * Links that are reset, or closed in one direction only, and peers that are there and say nothing,
 * or one byte at a time, where they have something to say: at each step, for both roles. Several are
 * tried at the same time where they do not depend on each other.
 */
import { expect } from "bun:test";
import { existsSync } from "node:fs";

import { identityPings, newIdentity } from "../../src/stream/identity.ts";
import {
  writeReceivedBitmapEnd,
  writeReceivedBitmapStart,
} from "../../src/stream/received-bitmap.ts";
import { waitUntil } from "../helpers/deadline.ts";
import { HandMadeDestination, HandMadePeer } from "../helpers/hand-made-peer.ts";
import {
  BEFORE_PACKAGE,
  bytesOf,
  command,
  opening,
  openReturnPath,
  packaged,
  page,
  ping,
  ramPart,
  zeroPages,
} from "../helpers/hand-made-stream.ts";
import { Link } from "../helpers/link.ts";
import { NO_RECOVERY, pages, startDest, startSource } from "../helpers/migration.ts";
import type { DestRole, SourceRole } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { PRECOPY } from "../helpers/refused-stream.ts";
import { HELLO, answerAsQemu } from "../helpers/stuck-source.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const linkTest = requireOrSkip(needUserfaultfd());

const COUNT = pages("16MiB");
const GUEST = "stress:size=16MiB,duration=100ms";
/** For what a peer in the hands of a test has to say at once, and for what another process has. */
const IMPATIENT = ["--link-timeout", "1s"] as const;
const PATIENT = ["--link-timeout", "2s"] as const;
const SLOW_PRECOPY = ["--switchover", "rounds=1000", "--max-bandwidth", "4MiB/s"] as const;
const SLOW_POSTCOPY = ["--switchover", "now", "--max-postcopy-bandwidth", "8MiB/s"] as const;

/** How far a source came that is in the hands of a test, and how it is known that it did. */
const STEPS: Readonly<Record<string, (peer: HandMadePeer, dest: DestRole) => Promise<unknown>>> = {
  "behind the opening": async (peer) => {
    peer.send(opening(), openReturnPath, ping(7));
    return await peer.message(({ kind }) => kind === "pong");
  },
  "in a page in precopy": async (peer, dest) => {
    const records = bytesOf(ramPart(page(0, 1), page(4096, 2)));
    peer.send(...PRECOPY, records.subarray(0, 5000));
    return await dest.event("guest");
  },
  "in the package": async (peer, dest) => {
    peer.send(...BEFORE_PACKAGE, bytesOf(packaged()).subarray(0, 100));
    return await dest.phase("device");
  },
  "while the device state waits for a page": async (peer) => {
    peer.send(...BEFORE_PACKAGE, packaged());
    return await peer.message(({ kind }) => kind === "pageRequest");
  },
};

linkTest("dest: a reset, at each step before the guest runs: it stays the source's", async () => {
  const ends = Object.entries(STEPS).map(async ([step, comeTo]) => {
    await using dest = await startDest();
    await using peer = await HandMadePeer.connect(dest.peer);
    await comeTo(peer, dest);
    peer.reset();
    const { exitCode, error, stderr } = await dest.end();
    const stays = stderr.includes("The guest did not start here");
    return { step, exitCode, code: error?.code, stays };
  });
  const expected = Object.keys(STEPS).map((step) => {
    return { step, exitCode: 1, code: "PEER_CLOSED", stays: true };
  });
  expect(await Promise.all(ends)).toEqual(expected);
});

linkTest(
  "source: a reset, or a closed direction, before the package: the guest stays",
  async () => {
    const ways = [(peer: HandMadePeer) => peer.reset(), (peer: HandMadePeer) => peer.endWriting()];
    const ends = ways.map(async (end) => {
      await using server = await HandMadeDestination.open();
      await using source = startSource({ to: server.peer, guest: GUEST, flags: SLOW_PRECOPY });
      const peer = await server.accept();
      await source.phase("precopy");
      end(peer);
      return await source.end();
    });
    for (const { exitCode, stayed } of await Promise.all(ends)) {
      expect({ exitCode, stayed }).toMatchObject({
        exitCode: 1,
        stayed: { pagesChecked: COUNT, pagesWrong: 0 },
      });
    }
  },
);

linkTest("a link that is closed in one direction, in postcopy: both pause and go on", async () => {
  const ends = (["source", "destination"] as const).map(async (towards) => {
    await using dest = await startDest();
    await using link = await Link.start(dest.peer);
    // Most of it is missing when the guest runs, however late that is seen.
    link.holdBehind(2 ** 20);
    await using source = startSource({ to: link.uri, guest: GUEST, flags: SLOW_POSTCOPY });
    await dest.event("running");
    link.carryOn();
    link.close(towards);
    await Promise.all([source.phase("paused"), dest.phase("paused")]);
    const [sent, got] = await Promise.all([source.end(), dest.end()]);
    return [sent.exitCode, got.exitCode, sent.report.recoveries, got.report.audit];
  });
  const whole = [0, 0, 1, { pagesChecked: COUNT, pagesWrong: 0 }];
  expect(await Promise.all(ends)).toEqual([whole, whole]);
});

linkTest("dest: who dribbles his opening is turned away, and the source gets in", async () => {
  await using dest = await startDest({ flags: PATIENT });
  await using dribbler = await HandMadePeer.connect(dest.peer);
  const words = bytesOf(opening(), openReturnPath, ping(7));
  dribbler.send(words.subarray(0, 8));
  await dest.event("connected");
  let said = 8;
  const dribbling = setInterval(() => {
    if (said < words.length) dribbler.send(words.subarray(said, ++said));
  }, 50);
  await using source = startSource({ to: dest.peer, guest: GUEST });
  const [sent, got] = await Promise.all([source.end(), dest.end()]);
  clearInterval(dribbling);
  expect([sent.exitCode, got.exitCode]).toEqual([0, 0]);
  expect(got.report.audit).toEqual({ pagesChecked: COUNT, pagesWrong: 0 });
  expect(got.stderr).toContain("began as a source and got no further in 2 s: it was turned away");
  expect(dribbler.ended).toBe(true);
});

linkTest("dest: who was turned away leaves nothing behind when it is stopped", async () => {
  await using directory = new TemporaryDirectory("turned-away");
  const path = directory.file("migration");
  await using dest = await startDest({ listen: `unix:${path}`, flags: IMPATIENT });
  await using _silent = await HandMadePeer.connect(dest.peer);
  await using beginner = await HandMadePeer.connect(dest.peer);
  beginner.send(bytesOf(opening()).subarray(0, 4));
  await dest.program.stderr.waitForLine(/Somebody began as a source and got no further in 1 s/);
  dest.program.kill("SIGINT");
  await dest.end();
  expect(existsSync(path)).toBe(false);
});

linkTest("dest: a source that falls silent before the guest runs gets it back", async () => {
  const silences = Object.entries(STEPS).filter(([step]) => /package|device/.test(step));
  const ends = silences.map(async ([, comeTo]) => {
    await using dest = await startDest({ flags: IMPATIENT });
    await using peer = await HandMadePeer.connect(dest.peer);
    await comeTo(peer, dest);
    const { exitCode, stderr } = await dest.end();
    expect(await peer.message(({ kind }) => kind === "shut")).toEqual({ kind: "shut", status: 1 });
    expect(stderr).toContain("The guest did not start here: it is the source's to go on with");
    return exitCode;
  });
  expect(await Promise.all(ends)).toEqual([1, 1]);
});

linkTest("dest: a source that never ends is not needed when every page is there", async () => {
  await using dest = await startDest({ flags: IMPATIENT });
  await using peer = await HandMadePeer.connect(dest.peer);
  peer.send(...BEFORE_PACKAGE, packaged(), ramPart(zeroPages()));
  const { exitCode, report } = await dest.end();
  expect({ exitCode, outcome: report.outcome }).toEqual({ exitCode: 0, outcome: "completed" });
  expect(await peer.message(({ kind }) => kind === "shut")).toEqual({ kind: "shut", status: 0 });
});

linkTest("source: a destination that hangs in precopy: the guest goes on", async () => {
  await using dest = await startDest();
  const flags = ["--switchover", "rounds=1000", ...IMPATIENT];
  await using source = startSource({ to: dest.peer, guest: GUEST, flags });
  await dest.event("guest");
  dest.program.kill("SIGSTOP");
  const { exitCode, error, stayed } = await source.end();
  expect({ exitCode, stayed }).toMatchObject({ exitCode: 1, stayed: { pagesWrong: 0 } });
  expect(error?.message).toContain("ETIMEDOUT");
});

/** The answer to RECV_BITMAP of a destination that has all of the guest. */
const WHOLE_BITMAP = bytesOf(
  (writer) => writeReceivedBitmapStart(writer, "stress.ram", COUNT),
  (writer) => writer.raw(new Uint8Array(COUNT / 8).fill(0xff)),
  writeReceivedBitmapEnd,
);

/** What a destination does that a source comes back to, the one try after the other. */
const TRIES: readonly ((peer: HandMadePeer) => void)[] = [
  (peer) => {
    // Half of it at once, and then it dribbles.
    let sent = WHOLE_BITMAP.length / 2;
    peer.send(WHOLE_BITMAP.subarray(0, sent));
    const dribbling = setInterval(() => {
      if (peer.ended) clearInterval(dribbling);
      else peer.send(WHOLE_BITMAP.subarray(sent, ++sent));
    }, 50);
  },
  (peer) => peer.send(WHOLE_BITMAP),
];

linkTest("source: a destination that answers a recovery by halves: paused again", async () => {
  await using server = await HandMadeDestination.open();
  const flags = ["--switchover", "now", "--max-postcopy-bandwidth", "64KiB/s", ...IMPATIENT];
  await using source: SourceRole = startSource({ to: server.peer, guest: GUEST, flags });
  const first = await server.accept();
  await answerAsQemu(first);
  await source.phase("postcopy");
  first.reset();
  for (const [number, act] of TRIES.entries()) {
    const peer = await server.accept(number + 1);
    await waitUntil(() => peer.received.length > 0, "RECV_BITMAP");
    act(peer);
    await peer.otherEnd();
  }
  // At last it has all, resumes, and is sent nothing but the end.
  const last = await server.accept(TRIES.length + 1);
  last.send(WHOLE_BITMAP);
  const asked = bytesOf(
    command({ kind: "recvBitmap", block: "stress.ram" }),
    ...identityPings(newIdentity()).map(ping),
  ).length;
  await waitUntil(() => last.received.length === asked, "which guest it is");
  last.answer({ kind: "pong", value: Buffer.from(last.received).readUInt32BE(asked - 4) });
  const said = asked + bytesOf(command({ kind: "postcopyResume" })).length;
  await waitUntil(() => last.received.length === said, "RESUME");
  last.answer({ kind: "resumeAck" });
  last.answer({ kind: "pong", value: HELLO });
  const hello = bytesOf(ping(HELLO)).length;
  await waitUntil(() => last.received.length > said + hello && last.received.at(-1) === 0, "EOF");
  last.answer({ kind: "shut", status: 0 });
  const { exitCode, stderr, events, report } = await source.end();
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  expect(report).toMatchObject({ outcome: "completed", recoveries: 1 });
  const pauses = events.filter((event) => event.event === "phase" && event.phase === "paused");
  expect(pauses).toHaveLength(1 + TRIES.length);
});

linkTest(
  "source: a destination that resets in postcopy, for good: what is lost is said",
  async () => {
    await using server = await HandMadeDestination.open();
    const flags = [...SLOW_POSTCOPY, ...NO_RECOVERY];
    await using source = startSource({ to: server.peer, guest: GUEST, flags });
    const peer = await server.accept();
    await answerAsQemu(peer);
    await source.phase("postcopy");
    peer.reset();
    const { exitCode, error, stayed } = await source.end();
    expect({ exitCode, stayed }).toEqual({ exitCode: 1, stayed: undefined });
    expect(error?.message).toContain("the guest is at the destination");
  },
);
