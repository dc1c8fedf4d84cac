/**
 * Files that QEMU saved come back, running, in another QEMU: plain streams, with xbzrle and with
 * compressed pages, mapped-ram with and without multifd, and what libvirt makes of them. The
 * guest's own memory is the check. docs/qemu.md is the table of these tests.
 */
import { expect } from "bun:test";
import { existsSync, readFileSync, statSync, utimesSync, writeFileSync } from "node:fs";
import type { Count } from "../helpers/memory-pattern.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { machineOf, needQemuVersion, QEMU_VERSIONS } from "../helpers/qemu-versions.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import { libvirtSave } from "../helpers/libvirt-save.ts";
import { COMPRESS } from "../helpers/qemu-snapshot.ts";
import { restoreStream, saveQemu } from "../helpers/saved-guest.ts";
import type { SaveOptions } from "../helpers/saved-guest.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const needs = (...versions: QemuVersion[]): ReturnType<typeof requireOrSkip> => {
  return requireOrSkip(...versions.map(needQemuVersion), needUserfaultfd());
};

const index = (file: string): string => `${file}.postcopy-index`;

/** How a version saves into a file: `file:` came with 8.2. */
function uriOf(version: QemuVersion, file: string): string {
  return version === "7.2" ? `exec:cat>${file}` : `file:${file}`;
}

/** Saves the guest of a version into `file`. */
async function save(
  version: QemuVersion,
  file: string,
  options: Partial<SaveOptions> = {},
): Promise<Count> {
  return await saveQemu({ version, uri: uriOf(version, file), ...options });
}

needs("7.2")("a stream of QEMU 7.2 back in QEMU 7.2, again by its index, and touched", async () => {
  await using directory = new TemporaryDirectory("stream");
  const file = directory.file("guest");
  const before = await save("7.2", file);
  const first = await restoreStream(file, "7.2", before);
  expect(first.stderr).toContain("kept beside it");
  const made = statSync(index(file));
  expect(made.mode & 0o777).toBe(0o600);
  const second = await restoreStream(file, "7.2", before);
  expect(second.stderr).not.toContain("index");
  expect(statSync(index(file)).ino).toBe(made.ino);
  utimesSync(file, new Date(), new Date());
  const third = await restoreStream(file, "7.2", before);
  expect(third.stderr).toContain("of another file, or of an earlier state");
  expect(statSync(index(file)).ino).not.toBe(made.ino);
});

const MOVES: [QemuVersion, QemuVersion][] = [
  ["7.2", "10.0"],
  ["7.2", "11.1"],
  ["10.0", "10.0"],
  ["11.1", "11.1"],
];

for (const [from, to] of MOVES) {
  needs(from, to)(`a stream of QEMU ${from} back in QEMU ${to}`, async () => {
    await using directory = new TemporaryDirectory("stream");
    const file = directory.file("guest");
    await restoreStream(file, to, await save(from, file), { machine: machineOf(from) });
  });
}

/** Holds all pages of the guest. */
const XBZRLE = { "xbzrle-cache-size": 256 * 1024 * 1024 };
const ENCODED: { name: string; version: QemuVersion; options: Partial<SaveOptions> }[] = [
  ...QEMU_VERSIONS.map((version) => ({
    name: "xbzrle",
    version,
    options: { capabilities: { xbzrle: true }, parameters: XBZRLE, round: 3 },
  })),
  { name: "compress", version: "7.2", options: COMPRESS },
];

for (const { name, version, options } of ENCODED) {
  needs(version)(`a stream of QEMU ${version} with ${name} back in it`, async () => {
    await using directory = new TemporaryDirectory("stream");
    const file = directory.file("guest");
    await restoreStream(file, version, await save(version, file, options));
    // Decoded pages lie in the index; the tables alone have some 400 KiB.
    expect(statSync(index(file)).size).toBeGreaterThan(32 * 1024 * 1024);
  });
}

const MAPPED: QemuVersion[] = ["10.0", "11.1"];

for (const version of MAPPED) {
  for (const multifd of [false, true]) {
    const name = `a mapped-ram file of QEMU ${version}${multifd ? " with multifd" : ""} back in it`;
    needs(version)(name, async () => {
      await using directory = new TemporaryDirectory("stream");
      const file = directory.file("guest");
      const before = await save(version, file, { capabilities: { "mapped-ram": true, multifd } });
      const { stderr } = await restoreStream(file, version, before);
      expect(stderr).toContain("no checksums");
      expect(existsSync(index(file))).toBe(false);
    });
  }

  needs(version)(`a sparse libvirt image of QEMU ${version} back in it`, async () => {
    await using directory = new TemporaryDirectory("stream");
    const file = directory.file("guest.save");
    const head = libvirtSave({ format: "sparse", xml: "<domain/>" });
    writeFileSync(file, head);
    const uri = `file:${file},offset=${head.length}`;
    const before = await save(version, file, { uri, capabilities: { "mapped-ram": true } });
    await restoreStream(file, version, before);
  });
}

needs("7.2")("a raw and a zstd libvirt image of QEMU 7.2 back in it", async () => {
  await using directory = new TemporaryDirectory("stream");
  const plain = directory.file("guest");
  const before = await save("7.2", plain);
  const stream = readFileSync(plain);
  const raw = directory.file("raw.save");
  writeFileSync(raw, Buffer.concat([libvirtSave({ format: "raw", xml: "<domain/>" }), stream]));
  await restoreStream(raw, "7.2", before);
  const packed = directory.file("zstd.save");
  const head = libvirtSave({ format: "zstd", xml: "<domain/>", wasRunning: false });
  writeFileSync(packed, Buffer.concat([head, Bun.zstdCompressSync(stream, { level: 1 })]));
  const { stderr } = await restoreStream(packed, "7.2", before);
  expect(stderr).toContain("was paused when libvirt saved it");
});
