/** What a QEMU says back that receives a kept guest of ours, also over a link that breaks. */
import { waitUntil } from "../helpers/deadline.ts";
import { startSource } from "../helpers/migration.ts";
import { machineOf, qemuProgram } from "../helpers/qemu-versions.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import { startQemu } from "../helpers/qemu.ts";
import type { Qemu } from "../helpers/qemu.ts";
import { RECOVERY } from "./constants.ts";
import { MEMORY_MIB, smallGuestArguments, withFirmware } from "./record-qemu.ts";
import { Tap } from "./tap.ts";

/** Sends the snapshot in `directory`, which is of a QEMU of that version. */
export async function recordBack(
  version: QemuVersion,
  directory: string,
): Promise<Map<string, Uint8Array>> {
  return await withFirmware(async (firmware) => {
    await using qemu = await startQemu({
      ...{ program: qemuProgram(version), machine: machineOf(version), memoryMib: MEMORY_MIB },
      ...{ incoming: "defer", outOfBand: true },
      extraArguments: smallGuestArguments(firmware),
    });
    await qemu.setCapabilities({ events: true, "postcopy-ram": true });
    await using tap = await Tap.start(`tcp:127.0.0.1:${await qemu.listen()}`);
    const flags = ["--max-postcopy-bandwidth", "256KiB/s"];
    await using source = startSource({ to: tap.uri, guest: `snapshot:${directory}`, flags });
    await qemu.qmp.waitForEvent("RESUME");
    tap.cut();
    tap.cut(await recover(qemu));
    const { exitCode, stderr } = await source.end();
    if (exitCode !== 0) throw new Error(stderr);
    const [first] = tap.connections;
    const again = tap.connections.findLast(({ forward }) => {
      return Buffer.concat(forward).subarray(0, RECOVERY.length).equals(RECOVERY);
    });
    return new Map(
      [[`back.${version}`, first] as const, [`back.${version}.recovery`, again] as const].map(
        ([name, one]) => [name, new Uint8Array(Buffer.concat(one?.back ?? []))],
      ),
    );
  });
}

async function recover(qemu: Qemu): Promise<string> {
  await qemu.waitForMigration("postcopy-paused");
  await waitUntil(async () => {
    return await qemu.qmp.execute("migrate-recover", { uri: "tcp:127.0.0.1:0" }).then(
      () => true,
      () => false,
    );
  }, "a QEMU that recovers");
  const reply = await qemu.qmp.execute<{ "socket-address"?: { port: string }[] }>("query-migrate");
  return `tcp:127.0.0.1:${reply["socket-address"]?.[0]?.port}`;
}
