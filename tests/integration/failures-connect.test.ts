/** Two ends that do not find each other, or find somebody else. */
import { expect, test } from "bun:test";
import { existsSync } from "node:fs";

import { LONG_TEST_MS } from "../helpers/deadline.ts";
import { HandMadeDestination, HandMadePeer } from "../helpers/hand-made-peer.ts";
import { SMALL_GUEST, expectMoved, pages, startDest, startSource } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { postcopyCommand, run } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const migrationTest = requireOrSkip(needUserfaultfd());

const COUNT = pages("16MiB");

/** A destination that is to listen where it cannot. */
async function listenOn(peer: string): Promise<{ exitCode: number | null; stderr: string }> {
  return await run(postcopyCommand("dest", "--guest", "stress", "--listen", peer));
}

test(
  "a tcp port that is in use",
  async () => {
    await using other = await HandMadeDestination.open();
    const { exitCode, stderr } = await listenOn(other.peer);
    expect(exitCode).toBe(1);
    expect(stderr).toStartWith(`postcopy: Cannot listen on ${other.peer}: bind(`);
    expect(stderr).toContain("EADDRINUSE");
    expect(stderr).toContain("hint: another program has it: choose another port, or 0 for a free");
  },
  LONG_TEST_MS,
);

test(
  "a unix socket that is in use is left alone, and a stale one is taken over",
  async () => {
    await using directory = new TemporaryDirectory("unix");
    const peer = `unix:${directory.file("migration")}`;
    await using first = await startDest({ listen: peer });
    const { exitCode, stderr } = await listenOn(peer);
    expect({ exitCode, stderr }).toMatchObject({ exitCode: 1 });
    expect(stderr).toContain("EADDRINUSE");
    first.program.kill("SIGKILL");
    await first.program.finish();
    expect(existsSync(directory.file("migration"))).toBe(true);
    await using second = await startDest({ listen: peer });
    expect(second.peer).toBe(peer);
  },
  LONG_TEST_MS,
);

test(
  "plain tcp off the loopback is refused unless it is asked for by name",
  async () => {
    const { exitCode, stderr } = await listenOn("tcp:0.0.0.0:0");
    expect(exitCode).toBe(2);
    expect(stderr).toStartWith("postcopy: tcp:0.0.0.0:0 is not on the loopback");
    await using dest = await startDest({ listen: "tcp:0.0.0.0:0", flags: ["--insecure"] });
    expect(dest.peer).toMatch(/^tcp:0\.0\.0\.0:\d+$/);
  },
  LONG_TEST_MS,
);

migrationTest("nobody listens: the source waits for a while, then its guest goes on", async () => {
  await using directory = new TemporaryDirectory("nobody");
  const to = `unix:${directory.file("nobody")}`;
  await using source = startSource({ to, flags: ["--connect-timeout", "400ms"] });
  const { exitCode, error, stayed, report, stderr } = await source.end();
  expect({ exitCode, error, stayed }).toMatchObject({
    exitCode: 1,
    error: {
      code: "CANNOT_CONNECT",
      hints: ["start the receiving end first, or raise --connect-timeout"],
    },
    stayed: { pagesChecked: COUNT, pagesWrong: 0 },
  });
  expect(stderr).toContain("The guest goes on here");
  expect(report.times.total).toBeGreaterThanOrEqual(350);
});

migrationTest("the source may be there first", async () => {
  await using directory = new TemporaryDirectory("first");
  const path = `unix:${directory.file("migration")}`;
  await using source = startSource({ to: path });
  await source.program.stderr.waitForLine(/^Filling the memory/);
  await using dest = await startDest({ listen: path });
  expectMoved(await source.end(), await dest.end(), COUNT);
});

migrationTest("a host name that nobody knows", async () => {
  await using source = startSource({ to: "tcp:nobody.invalid:4444" });
  const { exitCode, error } = await source.end();
  expect({ exitCode, error }).toMatchObject({ exitCode: 1, error: { code: "UNKNOWN_HOST" } });
  expect(error?.message).toContain('The host name "nobody.invalid" cannot be resolved');
});

/** What all sorts of programs say first. */
const STRANGERS: Readonly<Record<string, string | Uint8Array>> = {
  "an HTTP client": "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
  "a TLS client": Uint8Array.of(0x16, 0x03, 0x01, 0x02, 0x00, 0x01),
  "random bytes": Uint8Array.from({ length: 4096 }, (_, i) => (i * 167 + 13) & 0xff),
  "half of the magic": "QE",
  "a multifd channel": Uint8Array.of(0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1),
};

migrationTest(
  "strangers are turned away with a warning, and the destination waits on",
  async () => {
    await using dest = await startDest();
    // Says nothing for as long as it lasts, as a preempt channel of QEMU does.
    await using silent = await HandMadePeer.connect(dest.peer);
    for (const bytes of Object.values(STRANGERS)) {
      await using stranger = await HandMadePeer.connect(dest.peer);
      stranger.send(bytes);
      stranger.endWriting();
      await stranger.otherEnd();
      expect(stranger.received).toHaveLength(0);
    }
    await using caller = await HandMadePeer.connect(dest.peer);
    caller.close();
    await using source = startSource({ to: dest.peer, guest: SMALL_GUEST });
    const [sourceEnd, destEnd] = await Promise.all([source.end(), dest.end()]);
    expectMoved(sourceEnd, destEnd, COUNT);
    const warnings = destEnd.events.filter((event) => event.event === "warning");
    expect(warnings).toHaveLength(Object.keys(STRANGERS).length);
    for (const { message } of warnings) {
      expect(message).toBe("A connection that is not a QEMU migration stream was turned away");
    }
    expect(silent.received).toHaveLength(0);
  },
);

migrationTest("a destination that is no destination: the guest goes on", async () => {
  await using server = await HandMadeDestination.open();
  await using source = startSource({ to: server.peer, flags: ["--switchover", "now"] });
  const peer = await server.accept();
  peer.send("HTTP/1.1 400 Bad Request\r\n\r\n");
  const { exitCode, error, stayed } = await source.end();
  expect({ exitCode, stayed }).toMatchObject({ exitCode: 1, stayed: { pagesWrong: 0 } });
  expect(error?.message).toStartWith("The migration failed; the guest goes on here");
  expect(error?.message).toContain("The destination answered with an HTTP response");
});
