/**
 * The memory of a VMM is filled, byte for byte, with that of a guest which a real QEMU ran, while the
 * VMM reads it. The VMM is examples/vmm.c, which checks every byte.
 */
import { afterAll, expect } from "bun:test";
import { LONG_TEST_MS } from "../helpers/deadline.ts";
import { startDest, startSource } from "../helpers/migration.ts";
import { needCompiler, needQemu, needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";
import { keptMemory, removeVmm, startVmm, vmmReport } from "../helpers/vmm.ts";

const vmmTest = requireOrSkip(needQemu(), needUserfaultfd(), needCompiler());
afterAll(removeVmm);

vmmTest(
  "a VMM is filled over tcp from a snapshot of a QEMU guest, byte for byte",
  async () => {
    await using directory = new TemporaryDirectory("vmm-test");
    const socket = directory.file("vmm");
    const { guest, file, bytes } = await keptMemory();
    await using dest = await startDest({ guest: `uffd:${socket}` });
    await using vmm = await startVmm(socket, "--expect", file);
    const handover = await dest.event("handover");
    expect(handover).toMatchObject({ pid: vmm.pid, regions: 1, bytes });
    await using source = startSource({ guest, to: dest.peer });
    const report = await vmmReport(vmm);
    expect(report).toMatchObject({ exitCode: 0, pages: bytes / 4096, wrongPages: 0 });
    const ends = [await source.end(), await dest.end()];
    for (const { exitCode, stderr } of ends)
      expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  },
  LONG_TEST_MS,
);
