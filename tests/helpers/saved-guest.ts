/**
 * A real QEMU's guest saved into a file as an operator would save it, and what a restore of such a
 * file must come to.
 */
import { expect } from "bun:test";

import { hasCountedOn } from "./memory-pattern.ts";
import type { Count } from "./memory-pattern.ts";
import { startSource } from "./migration.ts";
import { enablePostcopy, slowPrecopy, waitForPrecopyRound } from "./qemu-snapshot.ts";
import { qemuProgram } from "./qemu-versions.ts";
import type { QemuVersion } from "./qemu-versions.ts";
import { startQemu } from "./qemu.ts";

export interface SaveOptions {
  version: QemuVersion;
  /** "exec:cat>FILE", "file:FILE". */
  uri: string;
  capabilities?: Record<string, boolean>;
  parameters?: Record<string, unknown>;
  /** Of the QEMU. */
  extraArguments?: readonly string[];
  /** The precopy round after which the rest is sent in one go, whatever the guest writes. */
  round?: number;
}

/**
 * As much time for the last round as it takes, the most that QEMU allows: it reckons by the bytes that
 * it sends, of which compressed pages make hardly any.
 */
const LAST_ROUND = { "max-bandwidth": 0, "downtime-limit": 2_000_000 };

/** Saves a guest that counts; gives the count at some time before. The file is complete then. */
export async function saveQemu(options: SaveOptions): Promise<Count> {
  const { version, uri, capabilities = {}, parameters = {}, round, extraArguments = [] } = options;
  await using source = await startQemu({ program: qemuProgram(version), extraArguments });
  await source.setCapabilities({ events: true, ...capabilities });
  if (round === undefined) await source.qmp.execute("migrate-set-parameters", LAST_ROUND);
  else await slowPrecopy(source);
  await source.qmp.execute("migrate-set-parameters", parameters);
  await source.waitForRounds(2);
  const before = await source.readCount();
  await source.qmp.execute("migrate", { uri });
  if (round !== undefined) {
    await waitForPrecopyRound(source, round);
    await source.qmp.execute("migrate-set-parameters", LAST_ROUND);
  }
  await source.waitForMigration("completed");
  return before;
}

/** Restores a file into a QEMU of that version, and looks that the guest counts on from `before`. */
export async function restoreStream(
  file: string,
  version: QemuVersion,
  before: Count,
  options: { machine?: string } = {},
): Promise<{ stderr: string }> {
  const program = qemuProgram(version);
  await using destination = await startQemu({ program, incoming: "defer", ...options });
  await enablePostcopy(destination);
  const to = `tcp:127.0.0.1:${await destination.listen()}`;
  await using source = startSource({ to, guest: `stream:${file}` });
  const { exitCode, stderr, report } = await source.end();
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  expect(report).toMatchObject({ outcome: "completed" });
  await destination.waitForMigration("completed");
  const after = await destination.readCount();
  expect(hasCountedOn(before, after)).toBe(true);
  await destination.waitForMoreSerial(2);
  expect(hasCountedOn(after, await destination.readCount())).toBe(true);
  return { stderr };
}
