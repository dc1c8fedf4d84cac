/** QEMUs that this program drives through a monitor, and a link between two of them that breaks. */
import { expect } from "bun:test";
import { waitUntil } from "./deadline.ts";
import type { Link } from "./link.ts";
import type { DestRole, SourceRole } from "./migration.ts";
import { startQemu } from "./qemu.ts";
import type { Qemu, QemuOptions } from "./qemu.ts";
import type { TemporaryDirectory } from "./temporary-directory.ts";

/**
 * A QEMU with a second monitor, as each monitor serves one client at a time: ours is the test's. Also
 * gives the other as a GUEST word.
 */
export async function startDriven(
  directory: TemporaryDirectory,
  name: string,
  options: QemuOptions,
): Promise<[qemu: Qemu, guest: string]> {
  const path = directory.file(name);
  const extraArguments = ["-qmp", `unix:${path},server=on,wait=off`];
  const qemu = await startQemu({ ...options, extraArguments });
  return [qemu, `qemu:${path}`];
}

/** A push that is over in a minute: whatever the guest needs first it asks for. */
export const HELD_PUSH_BYTES = 2 ** 20;

/** Lets go the push of a QEMU, which was held to HELD_PUSH_BYTES a second, once a page was asked for. */
export async function hurryOnceAsked({ qmp }: Qemu): Promise<void> {
  await waitUntil(async () => {
    const { ram } = await qmp.execute<{ ram?: { "postcopy-requests": number } }>("query-migrate");
    return (ram?.["postcopy-requests"] ?? 0) > 0;
  }, "a page that is asked for");
  await qmp.execute("migrate-set-parameters", { "max-postcopy-bandwidth": 0 });
}

/** A driven QEMU, and what drives it. */
interface DrivenEnd<Role> {
  qemu: Qemu;
  role: Role;
}

/** Breaks the link of a migration after its switch, and mends it: both ends go on by themselves, to the end. */
export async function breakAndMend(
  link: Link,
  { qemu: source, role: sending }: DrivenEnd<SourceRole>,
  { qemu: destination, role: receiving }: DrivenEnd<DestRole>,
): Promise<void> {
  // From 10.2 on a source takes its guest back when the link breaks before it has heard this.
  await Promise.all([sending.phase("postcopy"), destination.qmp.waitForEvent("RESUME")]);
  link.cut();
  await Promise.all([sending.phase("paused"), receiving.phase("paused")]);
  link.mend(receiving.peer);
  await source.qmp.execute("migrate-set-parameters", { "max-postcopy-bandwidth": 0 });
  const [sent, got] = await Promise.all([sending.end(), receiving.end()]);
  expect([sent, got].map(({ exitCode, stderr }) => ({ exitCode, stderr }))).toMatchObject([
    { exitCode: 0 },
    { exitCode: 0 },
  ]);
  expect(sent.report).toMatchObject({ outcome: "completed", recoveries: 1 });
  expect(got.report.outcome).toBe("completed");
}
