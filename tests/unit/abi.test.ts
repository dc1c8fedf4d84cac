/**
 * Every number in syscalls/abi is what the kernel's and libc's own headers say. Debian 12's headers
 * are older than some names; `bun scripts/kernel-headers.ts` fetches newer ones, which CI does.
 */
import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";

import { SYSCALLS_ARM64, SYSCALLS_X64 } from "../../syscalls/abi/numbers.ts";
import type { AbiTable } from "../../syscalls/abi/table.ts";
import type { AbiComparison } from "../helpers/abi.ts";
import { compareWithHeader, hasNewKernelHeaders } from "../helpers/abi.ts";
import { needCompiler, requireOrSkip } from "../helpers/need.ts";
import { PROJECT_ROOT } from "../helpers/spawn.ts";

const ABI_DIRECTORY = join(PROJECT_ROOT, "syscalls", "abi");
/** The two files of the folder that hold no table. */
const WITHOUT_TABLE = new Set(["table.ts", "numbers.ts"]);

interface FoundTable {
  file: string;
  table: AbiTable;
}

async function findTables(): Promise<FoundTable[]> {
  const found: FoundTable[] = [];
  for (const file of readdirSync(ABI_DIRECTORY).sort()) {
    const module = (await import(join(ABI_DIRECTORY, file))) as Record<string, unknown>;
    for (const [name, value] of Object.entries(module)) {
      if (/^ABI(_|$)/.test(name)) found.push({ file, table: value as AbiTable });
    }
  }
  return found;
}

/** System call numbers as a table, so that they are compared like everything else. */
function numbersTable(header: string, numbers: Record<string, number>): AbiTable {
  const constants = Object.entries(numbers).map(([name, value]) => [`__NR_${name}`, value]);
  return {
    header,
    constants: Object.fromEntries(constants) as Record<string, number>,
    structs: {},
  };
}

const comparisons = new Map<AbiTable, Promise<AbiComparison>>();

/** `compareWithHeader`, which two tests ask about each table. */
async function compareOnce(table: AbiTable): Promise<AbiComparison> {
  const comparison = comparisons.get(table) ?? compareWithHeader(table);
  comparisons.set(table, comparison);
  return await comparison;
}

const tables = await findTables();
const compilerTest = requireOrSkip(needCompiler());
/** For names that the machine's own headers may lack. */
const completeTest = requireOrSkip(needCompiler(), {
  what: "the header set of a newer kernel",
  missing: hasNewKernelHeaders() ? undefined : "run: bun scripts/kernel-headers.ts",
});

test("every file of syscalls/abi has a table", () => {
  const withTable = new Set(tables.map(({ file }) => file));
  const files = readdirSync(ABI_DIRECTORY).filter((file) => !WITHOUT_TABLE.has(file));
  expect(files.filter((file) => !withTable.has(file))).toEqual([]);
  expect(files.length).toBeGreaterThan(0);
});

describe.each(tables.map(({ file, table }) => [`${file}: ${table.header}`, table] as const))(
  "%s",
  (_, table) => {
    compilerTest("agrees with the header", async () => {
      const { wrong, confirmed, absent } = await compareOnce(table);
      expect(wrong).toEqual([]);
      expect(confirmed + absent.length).toBeGreaterThan(0);
    });
  },
);

completeTest("the headers know every name", async () => {
  const all = await Promise.all(tables.map(({ table }) => compareOnce(table)));
  expect(all.flatMap(({ absent }) => absent)).toEqual([]);
});

describe("system call numbers", () => {
  compilerTest("arm64: asm-generic/unistd.h", async () => {
    const table = numbersTable("asm-generic/unistd.h", SYSCALLS_ARM64);
    expect(await compareWithHeader(table)).toEqual({
      confirmed: Object.keys(SYSCALLS_ARM64).length,
      absent: [],
      wrong: [],
    });
  });

  // An arm64 machine has this header only in the set that the script fetches.
  const x64Test = process.arch === "x64" ? compilerTest : completeTest;
  x64Test("x86-64: asm/unistd_64.h", async () => {
    const table = numbersTable("asm/unistd_64.h", SYSCALLS_X64);
    expect(await compareWithHeader(table, "x86_64")).toEqual({
      confirmed: Object.keys(SYSCALLS_X64).length,
      absent: [],
      wrong: [],
    });
  });
});

describe("the comparison itself", () => {
  compilerTest("finds wrong values, sizes and offsets, and names that do not exist", async () => {
    const table: AbiTable = {
      header: "sys/uio.h",
      constants: { EOF: -1, SEEK_END: 3, NO_SUCH_CONSTANT: 1 },
      structs: {
        "struct iovec": { size: 24, fields: { iov_base: 0, iov_len: 4, iov_more: 8 } },
        "struct no_such_struct": { size: 8, fields: {} },
      },
    };
    expect(await compareWithHeader(table)).toEqual({
      confirmed: 2,
      absent: [
        "NO_SUCH_CONSTANT",
        "offsetof(struct iovec, iov_more)",
        "sizeof(struct no_such_struct)",
      ],
      wrong: [
        "SEEK_END is 2, not 3",
        "sizeof(struct iovec) is 16, not 24",
        "offsetof(struct iovec, iov_len) is 8, not 4",
      ],
    });
  });

  compilerTest("fails when the header does not exist", async () => {
    const table: AbiTable = { header: "no/such/header.h", constants: { EOF: -1 }, structs: {} };
    expect(compareWithHeader(table)).rejects.toThrow("cc failed");
  });
});
