/** `postcopy analyze` as one runs it: files, pipes and directories, exit codes, what goes where. */
import { afterAll, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";

import { analyseStream, runAnalyze } from "../helpers/analysis.ts";
import { LONG_TEST_MS } from "../helpers/deadline.ts";
import {
  BEFORE_PACKAGE,
  bytesOf,
  eof,
  packaged,
  page,
  ramEnd,
  ramPart,
} from "../helpers/hand-made-stream.ts";
import { libvirtSave } from "../helpers/libvirt-save.ts";
import { postcopyCommand, run } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const directory = new TemporaryDirectory("analyze");
const records = Array.from({ length: 16 }, (_, index) => page(index * 4096, 1 + index));
const stream = bytesOf(...BEFORE_PACKAGE, packaged(), ramPart(...records), ramEnd(), eof);

afterAll(async () => {
  await directory[Symbol.asyncDispose]();
});

function file(name: string, bytes: Uint8Array): string {
  const path = directory.file(name);
  writeFileSync(path, bytes);
  return path;
}

function analyzeTest(name: string, body: () => Promise<void>): void {
  test(name, body, LONG_TEST_MS);
}

analyzeTest("text goes to standard error, and --quiet leaves it out", async () => {
  const path = file("plain", stream);
  const told = await run(postcopyCommand("analyze", path));
  expect(told).toMatchObject({ exitCode: 0, stdout: "" });
  expect(told.stderr).toContain("migration stream of postcopy-stress-1, switched over to postcopy");
  const quiet = await run(postcopyCommand("analyze", "--quiet", path));
  expect(quiet).toMatchObject({ exitCode: 0, stdout: "", stderr: "" });
});

analyzeTest("a stream on standard input, also one with libvirt's head", async () => {
  const head = libvirtSave({ format: "raw", xml: "<domain/>" });
  const whole = file("image", Buffer.concat([head, stream]));
  const shell = ["sh", "-c", '"$@" <"$0"', whole, ...postcopyCommand("analyze", "-")];
  const { exitCode, stderr } = await run(shell);
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  expect(stderr).toContain("standard input: libvirt save image of postcopy-stress-1");
  const cut = file("cut", stream.subarray(0, stream.length - 1));
  const half = await run(["sh", "-c", 'cat "$0" | "$@"', cut, ...postcopyCommand("analyze", "-")]);
  expect(half.exitCode).toBe(1);
  expect(half.stderr).toContain(`standard input ends too early (at byte ${stream.length - 1} of`);
  const packed = file("packed", Bun.gzipSync(stream));
  const refused = await run(["sh", "-c", '"$@" <"$0"', packed, ...postcopyCommand("analyze", "-")]);
  expect(refused.exitCode).toBe(1);
  expect(refused.stderr).toContain("standard input is compressed (gzip)");
});

analyzeTest("a compressed file, and one that is cut off: what there was before", async () => {
  const packed = Bun.gzipSync(stream);
  const whole = await analyseStream(file("whole.gz", packed));
  expect(whole).toMatchObject({ complete: true, compression: "gzip", fileBytes: packed.length });
  expect(whole.records).toMatchObject({ normal: 16 });
  const half = await runAnalyze(file("half.gz", packed.subarray(0, packed.length - 40)));
  expect(half).toMatchObject({ exitCode: 1, error: { code: "DAMAGED_FILE" } });
  expect(half.analysis).toMatchObject({ complete: false, machineType: "postcopy-stress-1" });
});

analyzeTest("what there is nothing to say of", async () => {
  const foreign = await runAnalyze(file("foreign", Buffer.from("SSH-2.0-OpenSSH_9.2\r\n")));
  expect(foreign).toMatchObject({ exitCode: 1, analysis: undefined, error: { code: "BAD_MAGIC" } });
  const absent = await runAnalyze(directory.file("none"));
  expect(absent).toMatchObject({ exitCode: 2, error: { code: "NO_FILE" } });
  const bare = await runAnalyze(directory.path);
  expect(bare).toMatchObject({ exitCode: 2, error: { code: "NO_SNAPSHOT" } });
  const verify = await runAnalyze("--verify", file("plain", stream));
  expect(verify).toMatchObject({ exitCode: 2, error: { code: "BAD_VALUE" } });
  const nothing = await runAnalyze();
  expect(nothing).toMatchObject({ exitCode: 2, error: { code: "MISSING_WORD" } });
});
