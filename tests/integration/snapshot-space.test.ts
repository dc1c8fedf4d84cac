/** A disk that is too small for a guest: a clear error while there is a way back, and no later. */
import { expect } from "bun:test";

import { pages, startDest, startSource } from "../helpers/migration.ts";
import type { DestRole, SourceRole } from "../helpers/migration.ts";
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

/** The same with ext2, which cannot reserve room for a file. */
function withSmallExt2(image: string, path: string, size: string): string[] {
  const script =
    'truncate -s "$1" "$2" && mkfs.ext2 -q -m 0 "$2" && mount -o loop "$2" "$3" && ' +
    'shift 3 && exec "$@"';
  return ["unshare", "--mount", "sh", "-c", script, "sh", size, image, path];
}

function needExt2(): Need {
  const { success } = Bun.spawnSync(["sh", "-c", "command -v mkfs.ext2 && losetup -f"]);
  const missing = success ? undefined : "install e2fsprogs, and run as root with loop devices";
  return { what: "ext2 on a loop device", missing };
}

/** Both ends of a guest that did not fit: it was refused, and goes on whole at the source. */
async function expectRefused(dest: DestRole, source: SourceRole, path: string): Promise<void> {
  const [sourceEnd, destEnd] = await Promise.all([source.end(), dest.end()]);
  expect(destEnd).toMatchObject({ exitCode: 1, error: { code: "NO_SPACE" } });
  expect(destEnd.error?.message).toStartWith(`There is no space left for the snapshot in ${path}`);
  expect(destEnd.error?.message).toContain("ENOSPC");
  expect(destEnd.error?.hints).toEqual(["free space there, or keep it in another directory"]);
  expect(destEnd.report).toMatchObject({ outcome: "failed", snapshot: null });
  expect(destEnd.stderr).toContain("The guest did not start here");
  expect(sourceEnd).toMatchObject({
    exitCode: 1,
    stayed: { pagesChecked: COUNT, pagesWrong: 0 },
  });
  expect(sourceEnd.error?.message).toStartWith("The migration failed; the guest goes on here");
}

spaceTest("no space in precopy: the guest stays at the source", async () => {
  await using directory = new TemporaryDirectory("space");
  const { path } = directory;
  const before = withSmallDisk(path, "4m");
  await using dest = await startDest({ guest: `snapshot:${path}/guest`, before });
  await using source = startSource({ to: dest.peer, guest: GUEST });
  await expectRefused(dest, source, path);
});

const AT_ONCE = ["--switchover", "now"];

spaceTest("no space at the switchover: the guest stays at the source", async () => {
  await using directory = new TemporaryDirectory("space");
  const { path } = directory;
  const before = withSmallDisk(path, "4m");
  await using dest = await startDest({ guest: `snapshot:${path}/guest`, before });
  await using source = startSource({ to: dest.peer, guest: GUEST, flags: AT_ONCE });
  await expectRefused(dest, source, path);
});

const ext2Test = requireOrSkip(needUserfaultfd(), needMounts(), needExt2());

ext2Test("no space at the switchover where none can be reserved: it is counted", async () => {
  await using directory = new TemporaryDirectory("space");
  await using images = new TemporaryDirectory("images");
  const { path } = directory;
  const before = withSmallExt2(images.file("disk"), path, "8M");
  await using dest = await startDest({ guest: `snapshot:${path}/guest`, before });
  await using source = startSource({ to: dest.peer, guest: GUEST, flags: AT_ONCE });
  await expectRefused(dest, source, path);
});

ext2Test("enough of it where none can be reserved: the guest is kept", async () => {
  await using directory = new TemporaryDirectory("space");
  await using images = new TemporaryDirectory("images");
  const before = withSmallExt2(images.file("disk"), directory.path, "40M");
  await using dest = await startDest({ guest: `snapshot:${directory.path}/guest`, before });
  await using source = startSource({ to: dest.peer, guest: GUEST, flags: AT_ONCE });
  const ends = await Promise.all([source.end(), dest.end()]);
  expect(ends.map(({ exitCode }) => exitCode)).toEqual([0, 0]);
  expect(ends[1].report.snapshot?.pagesStored).toBeGreaterThan(0.9 * COUNT);
});
