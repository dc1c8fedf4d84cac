/** Works of the soak with QEMU: kept from one version, brought back in another, also with a kill. */
import { startSource } from "../../tests/helpers/migration.ts";
import {
  captureQemu,
  enablePostcopy,
  expectCountsOn,
  restoreIntoQemu,
  slowPrecopy,
} from "../../tests/helpers/qemu-snapshot.ts";
import {
  machineOf,
  needQemuVersion,
  qemuProgram,
  QEMU_VERSIONS,
} from "../../tests/helpers/qemu-versions.ts";
import type { QemuVersion } from "../../tests/helpers/qemu-versions.ts";
import { startQemu } from "../../tests/helpers/qemu.ts";
import type { Qemu } from "../../tests/helpers/qemu.ts";
import { TemporaryDirectory } from "../../tests/helpers/temporary-directory.ts";
import type { Random } from "../../tests/helpers/random.ts";

/** The versions that this machine has. */
export function qemusThere(): QemuVersion[] {
  return QEMU_VERSIONS.filter((version) => needQemuVersion(version).missing === undefined);
}

/** Has a paused QEMU listen again; where. */
async function listenAgain(qemu: Qemu): Promise<string> {
  await qemu.qmp.waitForEvent("MIGRATION", {
    accept: ({ data }) => data["status"] === "postcopy-paused",
  });
  await qemu.qmp.execute("migrate-recover", { uri: "tcp:127.0.0.1:0" });
  const reply = await qemu.qmp.execute<{ "socket-address"?: { port: string }[] }>("query-migrate");
  return `tcp:127.0.0.1:${reply["socket-address"]?.[0]?.port}`;
}

/** Sends a snapshot to a QEMU by a source that is killed, and by another that brings the rest. */
async function restoreWithKill(snapshot: string, destination: Qemu): Promise<void> {
  await enablePostcopy(destination);
  const guest = `snapshot:${snapshot}`;
  const to = `tcp:127.0.0.1:${await destination.listen()}`;
  await using first = startSource({ to, guest, flags: ["--max-postcopy-bandwidth", "16MiB/s"] });
  await destination.qmp.waitForEvent("RESUME");
  first.program.kill("SIGKILL");
  await using again = startSource({
    to: await listenAgain(destination),
    guest,
    flags: ["--resume"],
  });
  const { exitCode, stderr } = await again.end();
  if (exitCode !== 0) throw new Error(stderr);
  await destination.waitForMigration("completed");
}

/** A guest from one QEMU into a snapshot, and from there into another. */
export async function throughQemus(dice: Random): Promise<string> {
  const versions = qemusThere();
  const [from, to] = [dice.pick(versions), dice.pick(versions)];
  const machine = machineOf(versions.indexOf(from) < versions.indexOf(to) ? from : to);
  const capabilities = { "postcopy-preempt": dice.chance(50) };
  const [round, kill] = [dice.pick([0, 2, 3]), dice.chance(50)];
  await using directory = new TemporaryDirectory("soak");
  const snapshot = directory.file("guest");
  await using source = await startQemu({ program: qemuProgram(from), machine });
  await enablePostcopy(source, capabilities);
  await slowPrecopy(source);
  await source.waitForRounds(3);
  const before = await source.readCount();
  await captureQemu(source, snapshot, { round });
  await using destination = await startQemu({
    ...{ program: qemuProgram(to), machine, incoming: "defer", outOfBand: true },
  });
  if (kill) await restoreWithKill(snapshot, destination);
  else await restoreIntoQemu(snapshot, destination);
  await expectCountsOn(destination, before);
  return `QEMU ${from} to QEMU ${to}, round ${round}${kill ? ", with a kill" : ""}`;
}
