/**
 * Compares the numbers of syscalls/abi with the C headers they were taken from: writes a C program
 * that prints every constant, size and offset, compiles it, runs it, and looks for differences.
 *
 * A name that the headers of this machine do not know is set aside, not compared: the first
 * compilation puts each name on a line of its own and learns the unknown ones from the errors.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";

import type { AbiTable } from "../../syscalls/abi/table.ts";
import { KERNEL_HEADERS } from "../../scripts/kernel-headers.ts";
import { run } from "./spawn.ts";
import { TemporaryDirectory } from "./temporary-directory.ts";

/** One number of a table: what it is called in errors, its C expression, and what we say it is. */
interface Probe {
  name: string;
  expression: string;
  value: number;
}

export interface AbiComparison {
  /** Numbers that the headers confirm. */
  confirmed: number;
  /** Names that these headers do not have. */
  absent: string[];
  /** One sentence for each number that is not what the headers say. */
  wrong: string[];
}

/** Stands for the source file in the compiler's messages; the line is the probe's index plus 1. */
const PROBE_FILE = "probe";

function probesOf(table: AbiTable): Probe[] {
  const probes: Probe[] = Object.entries(table.constants).map(([name, value]) => {
    return { name, expression: name, value };
  });
  for (const [struct, { size, fields }] of Object.entries(table.structs)) {
    const name = `sizeof(${struct})`;
    probes.push({ name, expression: name, value: size });
    for (const [field, offset] of Object.entries(fields)) {
      const expression = `offsetof(${struct}, ${field})`;
      probes.push({ name: expression, expression, value: offset });
    }
  }
  return probes;
}

function programFor(header: string, probes: readonly Probe[]): string {
  return [
    "#define _GNU_SOURCE",
    "#include <stddef.h>",
    "#include <stdio.h>",
    // Headers that define ioctl numbers leave it to their user to include this.
    "#include <sys/ioctl.h>",
    `#include <${header}>`,
    "int main(void) {",
    ...probes.flatMap(({ expression }, index) => [
      `#line ${index + 1} "${PROBE_FILE}"`,
      `printf("%lld\\n", (long long)(${expression}));`,
    ]),
    "return 0;",
    "}",
    "",
  ].join("\n");
}

/** The newer kernel headers, where `bun scripts/kernel-headers.ts` has put them. */
function includeFlags(machine: string): string[] {
  if (!existsSync(KERNEL_HEADERS)) return [];
  return ["-isystem", KERNEL_HEADERS, "-isystem", join(KERNEL_HEADERS, `${machine}-linux-gnu`)];
}

/** Whether the headers are those of the script, which know every name that we use. */
export function hasNewKernelHeaders(): boolean {
  return existsSync(KERNEL_HEADERS);
}

/** Compares `table` with its header; `machine` is the one whose asm/ directory is taken. */
export async function compareWithHeader(
  table: AbiTable,
  machine: "x86_64" | "aarch64" = process.arch === "arm64" ? "aarch64" : "x86_64",
): Promise<AbiComparison> {
  await using directory = new TemporaryDirectory("abi");
  const source = directory.file("abi.c");
  const program = directory.file("abi");
  const flags = [
    "-w",
    "-Werror=implicit-function-declaration",
    ...includeFlags(machine),
    "-o",
    program,
    source,
  ];

  const all = probesOf(table);
  await Bun.write(source, programFor(table.header, all));
  const first = await run(["cc", ...flags], { environment: { LC_ALL: "C" } });
  const unknown = new Set<number>();
  for (const [, line] of first.stderr.matchAll(/^probe:(\d+):(?:\d+:)? error: /gm)) {
    unknown.add(Number(line) - 1);
  }
  const known = all.filter((_, index) => !unknown.has(index));
  if (unknown.size > 0) {
    await Bun.write(source, programFor(table.header, known));
    const second = await run(["cc", ...flags]);
    if (second.exitCode !== 0) throw new Error(`cc failed:\n${second.stderr}`);
  } else if (first.exitCode !== 0) {
    throw new Error(`cc failed:\n${first.stderr}`);
  }
  const absent = all.filter((_, index) => unknown.has(index)).map(({ name }) => name);
  return { ...compare(known, await runProbes(program)), absent };
}

async function runProbes(program: string): Promise<number[]> {
  const { exitCode, stdout, stderr } = await run([program]);
  if (exitCode !== 0) throw new Error(`the probe program failed:\n${stderr}`);
  return stdout.trim().split("\n").map(Number);
}

function compare(
  probes: readonly Probe[],
  values: readonly number[],
): Pick<AbiComparison, "confirmed" | "wrong"> {
  const wrong: string[] = [];
  for (const [index, { name, value }] of probes.entries()) {
    if (values[index] !== value) wrong.push(`${name} is ${values[index]}, not ${value}`);
  }
  return { confirmed: probes.length - wrong.length, wrong };
}
