/** A host that lacks what a role needs: said at once, with what to do, and the guest is safe. */
import { expect } from "bun:test";
import { existsSync, readFileSync, statSync } from "node:fs";

import { HandMadePeer } from "../helpers/hand-made-peer.ts";
import { BEFORE_PACKAGE, bytesOf } from "../helpers/hand-made-stream.ts";
import { SMALL_GUEST, expectMoved, pages, startDest, startSource } from "../helpers/migration.ts";
import { needCompiler, needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import type { Need } from "../helpers/need.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";
import { AS_NOBODY, needNobody, withoutUserfaultfd } from "../helpers/unprivileged.ts";

const COUNT = pages("16MiB");

/** A host as most are: userfaultfd is not for everyone, and its device is root's. */
function needStrictHost(): Need {
  const setting = readFileSync("/proc/sys/vm/unprivileged_userfaultfd", "latin1").trim();
  const device = "/dev/userfaultfd";
  const open = existsSync(device) && (statSync(device).mode & 0o006) !== 0;
  const strict = setting === "0" && !open;
  return {
    what: "a host where userfaultfd is not for everyone",
    missing: strict ? undefined : "sysctl vm.unprivileged_userfaultfd=0; chmod 600 the device",
  };
}

const nobodyTest = requireOrSkip(needUserfaultfd(), needNobody(), needStrictHost());
const filterTest = requireOrSkip(needUserfaultfd(), needNobody(), needCompiler());
const memoryTest = requireOrSkip(needUserfaultfd());

nobodyTest("as nobody, userfaultfd is for user code only: it works, and this is said", async () => {
  await using dest = await startDest({ before: AS_NOBODY });
  const flags = ["--switchover", "rounds=1", "--no-journal"];
  await using source = startSource({ to: dest.peer, guest: SMALL_GUEST, flags, before: AS_NOBODY });
  const [sourceEnd, destEnd] = await Promise.all([source.end(), dest.end()]);
  expectMoved(sourceEnd, destEnd, COUNT);
  const warnings = destEnd.events.filter((event) => event.event === "warning");
  expect(warnings.map(({ message }) => message)).toEqual([
    expect.stringMatching(/^This host allows a userfaultfd for user code only: /),
  ]);
  expect(destEnd.stderr).toContain("postcopy check says how to get a full one");
  // Nobody may favour a thread: it goes on without, and says so.
  expect([sourceEnd.report.favour, destEnd.report.favour]).toEqual(["usual", "usual"]);
});

filterTest(
  "no userfaultfd at the destination: refused with a hint, and the guest stays",
  async () => {
    await using directory = new TemporaryDirectory("filter");
    const before = withoutUserfaultfd(directory);
    await using dest = await startDest({ before });
    await using source = startSource({ to: dest.peer });
    const [sourceEnd, destEnd] = await Promise.all([source.end(), dest.end()]);
    expect(destEnd).toMatchObject({
      exitCode: 3,
      error: {
        code: "NO_USERFAULTFD",
        hints: ["postcopy check says how to get it"],
        exitCode: 3,
      },
      report: { outcome: "failed", phase: "precopy" },
    });
    expect(destEnd.error?.message).toStartWith(
      "This host lets us have no userfaultfd: userfaultfd(",
    );
    expect(destEnd.error?.message).toContain("EPERM");
    expect(sourceEnd).toMatchObject({
      exitCode: 1,
      stayed: { pagesChecked: COUNT, pagesWrong: 0 },
    });
  },
);

filterTest("the source is told while its guest still runs there", async () => {
  await using directory = new TemporaryDirectory("filter");
  await using dest = await startDest({ before: withoutUserfaultfd(directory) });
  await using peer = await HandMadePeer.connect(dest.peer);
  peer.send(bytesOf(...BEFORE_PACKAGE));
  await peer.otherEnd();
  expect(peer.messages).toEqual([
    { kind: "pong", value: 1 },
    { kind: "shut", status: 1 },
  ]);
  expect((await dest.end()).exitCode).toBe(3);
});

filterTest("no userfaultfd at the source: no precopy, and this is said", async () => {
  await using directory = new TemporaryDirectory("filter");
  const before = withoutUserfaultfd(directory);
  await using dest = await startDest();
  const flags = ["--switchover", "rounds=2", "--no-journal"];
  await using source = startSource({ to: dest.peer, guest: SMALL_GUEST, flags, before });
  const [sourceEnd, destEnd] = await Promise.all([source.end(), dest.end()]);
  expectMoved(sourceEnd, destEnd, COUNT);
  expect(sourceEnd.report.rounds).toEqual([]);
  expect(sourceEnd.report.pages.owed).toBe(COUNT);
  const warning = sourceEnd.events.find((event) => event.event === "warning");
  expect(warning?.message).toEndWith("no precopy; every page follows after the switchover");
});

memoryTest("a guest larger than this host's memory is not even started", async () => {
  await using source = startSource({ to: "tcp:127.0.0.1:1", guest: "stress:size=1TiB" });
  const { exitCode, error, events } = await source.end();
  expect({ exitCode, error }).toMatchObject({
    exitCode: 3,
    error: { code: "NO_MEMORY", hints: ["move a smaller guest, or free memory on this host"] },
  });
  expect(error?.message).toStartWith("The guest needs 1 TiB of memory and the host has ");
  expect(events).toHaveLength(1);
});
