/** The wrapper that runs a QEMU of another Debian: it finds what lies beside it, from anywhere. */
import { expect, test } from "bun:test";
import { chmodSync, mkdirSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";

import { qemusDirectory, wrapperScript } from "../../../scripts/qemus.ts";
import { run } from "../../helpers/spawn.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const LIBRARIES = "root/usr/lib/x86_64-linux-gnu";

async function writeProgram(path: string, text: string): Promise<void> {
  mkdirSync(dirname(path), { recursive: true });
  await Bun.write(path, text);
  chmodSync(path, 0o755);
}

test("the wrapper runs the loader beside it with its arguments, also through a link", async () => {
  await using directory = new TemporaryDirectory("wrapper");
  const place = directory.file("a place");
  const wrapper = join(place, "qemu-system-x86_64");
  await writeProgram(wrapper, wrapperScript("x64"));
  const show = `#!/bin/sh\necho "$QEMU_MODULE_DIR"\nprintf '%s\\n' "$@"\n`;
  await writeProgram(join(place, LIBRARIES, "ld-linux-x86-64.so.2"), show);
  const link = directory.file("qemu");
  symlinkSync(wrapper, link);

  for (const program of [wrapper, link]) {
    const { exitCode, stdout, stderr } = await run([program, "-m", "two words"], { cwd: "/" });
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    const lines = stdout.trimEnd().split("\n");
    expect(lines.slice(0, 4)).toEqual([
      join(place, LIBRARIES, "qemu"),
      "--library-path",
      join(place, LIBRARIES),
      join(place, "root/usr/bin/qemu-system-x86_64"),
    ]);
    expect(lines.slice(-2)).toEqual(["-m", "two words"]);
  }
});

test("an architecture that Debian has no such QEMU for is named", () => {
  expect(() => wrapperScript("mips")).toThrow("qemu-system-x86 for mips");
});

test("the QEMUs may lie in a directory that several checkouts share", () => {
  expect(qemusDirectory({ POSTCOPY_QEMUS: "/srv/qemus" })).toBe("/srv/qemus");
  expect(qemusDirectory({})).toEndWith("/.cache/qemu");
});
