/** Which QEMU a monitor belongs to: a QEMU that is started again is another one, with its guest. */
import { realpathSync } from "node:fs";
import type { JournalGuest } from "../../journal/entry.ts";
import type { QmpClient } from "../../qmp/client.ts";
import { uuidSchema } from "../../qmp/messages.ts";
import { processAt } from "../../util/processes.ts";

/**
 * How the journal knows the guest of a running QEMU. The kernel says which process listens at the
 * monitor; where something else does so for QEMUs, their uuids tell them apart.
 */
export async function identifyQemu(qmp: QmpClient): Promise<JournalGuest> {
  const pid = qmp.process;
  const { UUID: uuid } = await qmp.execute("query-uuid", {}, uuidSchema);
  const process = pid > 0 ? (processAt(pid) ?? null) : null;
  return { kind: "qemu", process, socket: realpathSync(qmp.path), uuid };
}
