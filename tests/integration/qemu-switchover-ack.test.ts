/**
 * A QEMU whose operator has switched `switchover-ack` on: up to the machines of 11.0 it does not
 * switch before the destination agrees, whatever its devices need. That one without the capability
 * takes no notice is what every other test with QEMU 10.0 shows.
 */
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { captureQemu, enablePostcopy } from "../helpers/qemu-snapshot.ts";
import { machineOf, needQemuVersion, qemuProgram } from "../helpers/qemu-versions.ts";
import { startQemu } from "../helpers/qemu.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

for (const [version, machine] of [
  ["10.0", machineOf("10.0")],
  ["11.1", machineOf("10.0")],
  ["11.1", machineOf("11.1")],
] as const) {
  const test = requireOrSkip(needQemuVersion(version), needUserfaultfd());
  test(`QEMU ${version} with switchover-ack on, and a ${machine}, to snapshot`, async () => {
    await using directory = new TemporaryDirectory("ack");
    await using source = await startQemu({ program: qemuProgram(version), machine });
    await enablePostcopy(source, { "return-path": true, "switchover-ack": true });
    await source.waitForRounds(1);
    await captureQemu(source, directory.file("guest"));
  });
}
