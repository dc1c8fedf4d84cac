/**
 * A dest that is killed while it fills a VMM's memory, where somebody keeps the userfaultfd: another
 * one goes on, to the last byte, while the VMM's balloon gives pages back all the time. The VMM is
 * examples/vmm.c: what it gave back must read as zeros, everything else as it was saved.
 */
import { afterAll, expect } from "bun:test";

import { waitUntil } from "../helpers/deadline.ts";
import { Link } from "../helpers/link.ts";
import { startDest, startSource } from "../helpers/migration.ts";
import { needCompiler, needQemu, needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { ServiceManager } from "../helpers/service-manager.ts";
import { postcopyCommand, spawn } from "../helpers/spawn.ts";
import type { RunningProgram } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";
import { keptMemory, removeVmm, startVmm, vmmReport } from "../helpers/vmm.ts";

const vmmTest = requireOrSkip(needQemu(), needUserfaultfd(), needCompiler());
afterAll(removeVmm);

/** Most of it is asked for. */
const SLOW = ["--max-postcopy-bandwidth", "2MiB/s", "--no-record"] as const;
/** Bytes of the guest's 32 MiB (of which half are zeros) after which dest is killed. */
const KILLED_AFTER = 3 * 2 ** 20;
/** Its balloon is at work all the time, and takes a tenth of the memory. It lives until it is told. */
const READING = [
  "--threads",
  "2",
  "--discard",
  "60",
  "--pace",
  "20000",
  "--wait",
  "--hold",
] as const;

/** Lets a VMM end that has read everything: it found no byte wrong, and its balloon was at work. */
async function expectRight(vmm: RunningProgram, bytes: number): Promise<void> {
  vmm.writeLine("end");
  const { discarded, ...report } = await vmmReport(vmm);
  expect(report).toMatchObject({ exitCode: 0, pages: bytes / 4096, wrongPages: 0 });
  expect(discarded).toBeGreaterThan(0);
}

vmmTest("dest is killed, a holder has the userfaultfd: the next one fills the rest", async () => {
  await using directory = new TemporaryDirectory("vmm-held");
  const [socket, held] = [directory.file("vmm"), directory.file("held")];
  const { guest, file, bytes } = await keptMemory();
  await using holder = spawn(postcopyCommand("hold", "--socket", held));
  await holder.stderr.waitForLine(/Waiting for descriptors/);
  const flags = ["--keep-fd", `holder:${held}`];
  await using dest = await startDest({ guest: `uffd:${socket}`, flags });
  await using vmm = await startVmm(socket, "--expect", file, ...READING);
  await dest.event("handover");
  await using link = await Link.start(dest.peer);
  await using source = startSource({ guest, to: link.uri, flags: SLOW });
  await dest.phase("postcopy");
  vmm.writeLine("read");
  const all = (): number => link.carried(0) + link.carried(1);
  await waitUntil(() => all() > KILLED_AFTER, "a part of the memory");
  dest.program.kill();
  link.cut();
  await dest.program.finish();
  await using next = await startDest({ guest: `uffd:${socket}`, flags: [...flags, "--resume"] });
  link.mend(next.peer);
  await vmm.stdout.waitForLine(/wrongPages/);
  const ends = [await source.end(), await next.end()];
  for (const { exitCode, stderr } of ends)
    expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  await expectRight(vmm, bytes);
  expect(await holder.finish()).toMatchObject({ exitCode: 0 });
});

vmmTest("the same where systemd has it, of a service that it starts again", async () => {
  await using directory = new TemporaryDirectory("vmm-stored");
  const socket = directory.file("vmm");
  const { guest, file, bytes } = await keptMemory();
  await using manager = await ServiceManager.start(`@${directory.path}`);
  const { stderr } = manager.program;
  const words = ["dest", "--guest", `uffd:${socket}`, "--listen", "tcp:127.0.0.1:0"];
  const service = postcopyCommand(...words, "--keep-fd", "systemd");
  const listening = /Waiting for a source on (\S+)$/;
  const first = await manager.startService(service);
  const [, peer = ""] = await stderr.waitForLine(listening);
  await stderr.waitForLine(/Waiting for a VMM/);
  await using vmm = await startVmm(socket, "--expect", file, ...READING);
  await stderr.waitForLine(/is kept by systemd's descriptor store/);
  await using link = await Link.start(peer);
  await using source = startSource({ guest, to: link.uri, flags: SLOW });
  await source.phase("postcopy");
  vmm.writeLine("read");
  const all = (): number => link.carried(0) + link.carried(1);
  await waitUntil(() => all() > KILLED_AFTER, "a part of the memory");
  process.kill(first, "SIGKILL");
  link.cut();
  await manager.program.stdout.waitForLine(new RegExp(`"ended":${first}`));
  const from = stderr.text.length;
  await manager.startService([...service, "--resume"]);
  const [, next = ""] = await stderr.waitForLine(listening, { from });
  link.mend(next);
  await vmm.stdout.waitForLine(/wrongPages/);
  expect(await source.end()).toMatchObject({ exitCode: 0 });
  await expectRight(vmm, bytes);
  const removed = (): string[] =>
    manager.messages
      .map(({ message }) => message)
      .filter((text) => text.startsWith("FDSTOREREMOVE"));
  await waitUntil(() => removed().length === 3, "the end of what is stored");
});
