/**
 * A Linux that is suspended to memory (ACPI S3) when it is kept: it comes back suspended, and goes on
 * where it fell asleep when it is woken. QEMU can do that from 9.2 on.
 */
import { expect } from "bun:test";

import { bootLinux, LinuxPlace, needLinuxGuest } from "../helpers/linux-guest.ts";
import { startDest } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { runPostcopy, sourceReportOf } from "../helpers/postcopy-run.ts";
import { machineOf, needQemuVersion, qemuPath } from "../helpers/qemu-versions.ts";
import { QmpClient } from "../helpers/qmp.ts";

async function statusOf(monitor: QmpClient): Promise<string> {
  return (await monitor.execute<{ status: string }>("query-status")).status;
}

const linuxTest = requireOrSkip(needQemuVersion("11.1"), needLinuxGuest(), needUserfaultfd());

linuxTest(
  "a Linux in QEMU 11.1 that sleeps is kept asleep, and wakes when it is woken",
  async () => {
    await using place = new LinuxPlace();
    const machine = { program: [qemuPath("11.1")], machine: machineOf("11.1"), memoryMib: 128 };
    await using guest = await bootLinux(place, { ...machine, name: "before" });
    await using monitor = await QmpClient.connect(guest.monitor);
    // The answer comes when it has been woken, on the second serial port of another QEMU.
    const asleep = guest.ask("echo awake > /data/file; echo mem > /sys/power/state");
    asleep.catch(() => undefined);
    await monitor.waitForEvent("SUSPEND");
    await using dest = await startDest({ guest: `snapshot:${place.file("kept")}` });
    const capabilities = [{ capability: "postcopy-ram", state: true }];
    await monitor.execute("migrate-set-capabilities", { capabilities });
    await monitor.execute("migrate", { uri: dest.peer });
    await monitor.execute("migrate-start-postcopy");
    const { exitCode, stderr } = await dest.end();
    expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
    const again = { ...machine, name: "after" };
    const restore = [
      "source",
      "--guest",
      `snapshot:${place.file("kept")}`,
      "--run",
      place.commandLine(again),
    ];
    await using woken = place.guest("after");
    const restored = await runPostcopy(restore);
    sourceReportOf(restored);
    await using other = await QmpClient.connect(woken.monitor);
    expect(await statusOf(other)).toBe("suspended");
    expect(restored.stderr).toContain("suspended, as it was kept, in QEMU");
    expect(woken.printed()).toBe("");
    await other.execute("system_wakeup");
    await woken.waitForNumbers(100);
    // It goes on with the next number, and its kernel has nothing to complain about.
    const lines = `${guest.printed()}${woken.printed()}`.split("\n").slice(0, -1);
    const from = lines.indexOf("0");
    expect(lines.slice(from)).toEqual(lines.slice(from).map((_, i) => String(i)));
    expect(await woken.ask("cat /data/file")).toBe("awake\n");
  },
);
