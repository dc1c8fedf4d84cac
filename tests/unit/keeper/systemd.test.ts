/**
 * systemd's descriptor store, against a service manager of the tests' own that reads the very datagrams
 * which sd_notify(3) describes, and starts services as sd_listen_fds(3) does.
 */
import { expect, test } from "bun:test";
import { fstatSync } from "node:fs";
import { join } from "node:path";
import { KeeperError } from "../../../src/keeper/keeper.ts";
import { SystemdKeeper } from "../../../src/keeper/systemd.ts";
import type { Environment } from "../../../src/keeper/systemd.ts";
import { LONG_TEST_MS, waitUntil } from "../../helpers/deadline.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { ServiceManager } from "../../helpers/service-manager.ts";
import { PROJECT_ROOT } from "../../helpers/spawn.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

/** What a service prints that takes its descriptors back. */
const TAKER = `
  const { SystemdKeeper } = await import(${JSON.stringify(join(PROJECT_ROOT, "src/keeper/systemd.ts"))});
  const { fstatSync } = await import("node:fs");
  const kept = (await new SystemdKeeper(process.env, process.pid).takeBack()).kept;
  const left = Object.keys(process.env).filter((name) => name.startsWith("LISTEN_"));
  console.log("TAKEN", JSON.stringify({ kept: kept.map(({ name, fd }) => [name, fstatSync(fd).ino]), left }));
`;

test(
  "what is stored under names is given to the next service, until it is removed",
  async () => {
    await using directory = new TemporaryDirectory("systemd");
    using descriptors = new Descriptors();
    for (const where of [directory.file("notify"), `@postcopy-notify-${process.pid}`]) {
      await using manager = await ServiceManager.start(where);
      const kept = ["userfault", "process"].map((name) => ({ name, fd: descriptors.event() }));
      const inodes = kept.map(({ fd }) => fstatSync(fd).ino);
      const keeper = new SystemdKeeper({ NOTIFY_SOCKET: where }, process.pid);
      expect(await keeper.keep(kept)).toBe("outlives");
      await waitUntil(() => manager.messages.length === 3, "three datagrams");
      expect(manager.messages).toEqual([
        { message: "FDSTORE=1\nFDNAME=postcopy-userfault\nFDPOLL=0", inodes: [inodes[0] ?? -1] },
        { message: "FDSTORE=1\nFDNAME=postcopy-process\nFDPOLL=0", inodes: [inodes[1] ?? -1] },
        { message: "BARRIER=1", inodes: [expect.any(Number)] },
      ]);
      await manager.startService([process.execPath, "-e", TAKER]);
      const taken = await manager.program.stdout.waitForLine(/^TAKEN (.*)$/);
      expect(JSON.parse(taken[1] ?? "")).toEqual({
        kept: [
          ["userfault", inodes[0]],
          ["process", inodes[1]],
        ],
        left: [],
      });
      await keeper.release(["userfault", "process"]);
      await waitUntil(() => manager.messages.length === 6, "three more");
      expect(manager.messages.slice(3, 5).map(({ message }) => message)).toEqual([
        "FDSTOREREMOVE=1\nFDNAME=postcopy-userfault",
        "FDSTOREREMOVE=1\nFDNAME=postcopy-process",
      ]);
    }
  },
  LONG_TEST_MS,
);

test("where there is no systemd, or it has no room, that is said", async () => {
  using descriptors = new Descriptors();
  const kept = [{ name: "userfault", fd: descriptors.event() }];
  const refusal = async (
    environment: Environment,
    act: (keeper: SystemdKeeper) => Promise<unknown>,
  ): Promise<string> => {
    try {
      await act(new SystemdKeeper(environment, process.pid));
    } catch (error) {
      if (error instanceof KeeperError) return `${error.code} ${error.message}; ${error.hint}`;
      throw error;
    }
    throw new Error("it was not refused");
  };
  const keep = (keeper: SystemdKeeper): Promise<unknown> => keeper.keep(kept);
  expect(await refusal({}, keep)).toMatch(
    /^NO_KEEPER .*NOTIFY_SOCKET is not set; .*FileDescriptorStore/,
  );
  expect(await refusal({ NOTIFY_SOCKET: "vsock:2:1" }, keep)).toContain("vsock:2:1");
  const nobody = { NOTIFY_SOCKET: "@postcopy-nobody-is-there" };
  expect(await refusal(nobody, keep)).toStartWith("NO_KEEPER systemd cannot be spoken to");
  const check = (keeper: SystemdKeeper): Promise<void> => keeper.check(3);
  expect(await refusal({ ...nobody, FDSTORE: "2" }, check)).toMatch(/^NOT_KEPT .*2 descriptors/);
  expect(await refusal({}, check)).toStartWith("NO_KEEPER");
  await new SystemdKeeper({ ...nobody, FDSTORE: "3" }, process.pid).check(3);
  const take = (keeper: SystemdKeeper): Promise<unknown> => keeper.takeBack();
  expect(await refusal({}, take)).toStartWith("NOTHING_KEPT");
  const other = { LISTEN_PID: "1", LISTEN_FDS: "1", LISTEN_FDNAMES: "postcopy-userfault" };
  expect(await refusal(other, take)).toStartWith("NOTHING_KEPT");
});
