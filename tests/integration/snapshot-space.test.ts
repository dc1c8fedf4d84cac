/** A disk that is full before the guest is kept: a clear error, and the guest goes on. */
import { expect } from "bun:test";

import { pages, startDest, startSource } from "../helpers/migration.ts";
import type { Need } from "../helpers/need.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

function needMounts(): Need {
  const allowed = Bun.spawnSync(["unshare", "--mount", "true"]).success;
  return { what: "a mount namespace", missing: allowed ? undefined : "run as root" };
}

const spaceTest = requireOrSkip(needUserfaultfd(), needMounts());

const COUNT = pages("16MiB");
const GUEST = "stress:size=16MiB,zero=0,duration=100ms";

/** Words before a command that give it a file system of `size` at `path`, which nobody else sees. */
function withSmallDisk(path: string, size: string): string[] {
  const script = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"';
  return ["unshare", "--mount", "sh", "-c", script, "sh", size, path];
}

spaceTest("no space in precopy: the guest stays at the source", async () => {
  await using directory = new TemporaryDirectory("space");
  const path = directory.path;
  const before = withSmallDisk(path, "4m");
  await using dest = await startDest({ guest: `snapshot:${path}/guest`, before });
  await using source = startSource({ to: dest.peer, guest: GUEST });
  const [sourceEnd, destEnd] = await Promise.all([source.end(), dest.end()]);
  expect(destEnd).toMatchObject({ exitCode: 1, error: { code: "NO_SPACE" } });
  expect(destEnd.error?.message).toStartWith(`There is no space left for the snapshot in ${path}`);
  expect(destEnd.error?.message).toContain("ENOSPC");
  expect(destEnd.error?.hints).toEqual(["free space there, or keep it in another directory"]);
  expect(destEnd.stderr).toContain("The guest did not start here");
  expect(sourceEnd).toMatchObject({
    exitCode: 1,
    stayed: { pagesChecked: COUNT, pagesWrong: 0 },
  });
  expect(sourceEnd.error?.message).toStartWith("The migration failed; the guest goes on here");
});

spaceTest(
  "no space after the switchover: each end says so, and nobody claims a snapshot",
  async () => {
    await using directory = new TemporaryDirectory("space");
    const path = directory.path;
    const before = withSmallDisk(path, "4m");
    await using dest = await startDest({ guest: `snapshot:${path}/guest`, before });
    await using source = startSource({
      to: dest.peer,
      guest: GUEST,
      flags: ["--switchover", "now"],
    });
    const [sourceEnd, destEnd] = await Promise.all([source.end(), dest.end()]);
    expect(destEnd).toMatchObject({ exitCode: 1, error: { code: "NO_SPACE" } });
    expect(destEnd.report).toMatchObject({ outcome: "failed", snapshot: null });
    expect(destEnd.stderr).toContain("The guest was taken over and is no whole snapshot");
    expect(sourceEnd.exitCode).toBe(1);
    expect(sourceEnd.error?.message).toStartWith(
      "The migration failed after the switchover: the guest is at the destination",
    );
  },
);
