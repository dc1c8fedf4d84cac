/** The manifest as it is read back: nothing in it is taken on trust. */
import { join } from "node:path";
import * as z from "zod";
import {
  HOST_PAGE_SIZE_MAX,
  RAM_BLOCKS_MAX,
  RAM_BYTES_MAX,
  TARGET_PAGE_SIZE,
} from "../../stream/constants.ts";
import { UsageError } from "../../util/errors.ts";
import { readRegular } from "../../util/files.ts";
import { damagedSnapshot, NOTHING_SENT } from "./damage.ts";
import { whatIsInstead } from "./directory.ts";
import {
  manifestBytesMax,
  MANIFEST_FILE,
  PACKAGE_FILE,
  ramFile,
  SNAPSHOT_FORMAT,
  SNAPSHOT_VERSION,
  sumsFile,
  VM_DESCRIPTION_FILE,
} from "./layout.ts";
import type { Manifest } from "./layout.ts";

const digest = z.string().regex(/^[0-9a-f]{64}$/);

/** A file that is covered as a whole. */
export function fileSchema<Name extends string>(name: Name) {
  return z.strictObject({ file: z.literal(name), bytes: z.int().positive(), sha256: digest });
}

/**
 * What there is to know of a RAM block, wherever it lies. A length need not be whole host pages:
 * QEMU's memory of 3 MiB in pages of 2 MiB is none.
 */
export const blockShape = {
  name: z.string().min(1).max(255),
  length: z.int().positive().max(RAM_BYTES_MAX).multipleOf(TARGET_PAGE_SIZE),
  pageSize: z
    .int()
    .min(TARGET_PAGE_SIZE)
    .max(HOST_PAGE_SIZE_MAX)
    .refine((size) => Number.isInteger(Math.log2(size)), "is not a power of two"),
};

const blockSchema = z
  .strictObject({
    ...blockShape,
    file: z.string(),
    sums: z.string(),
    sumsSha256: digest,
    pagesStored: z.int().nonnegative(),
  })
  .refine(({ length, pagesStored }) => pagesStored <= length / TARGET_PAGE_SIZE, {
    error: "is more than the block has pages",
    path: ["pagesStored"],
  });

/** What holds of RAM blocks together: each is a page at least, and none is there twice. */
export function blocksSchema<Block extends { name: string; length: number; pageSize: number }>(
  block: z.ZodType<Block>,
) {
  const whole = block.refine(({ length, pageSize }) => length >= pageSize, {
    error: "is less than a page of the block",
    path: ["length"],
  });
  return z
    .array(whole)
    .min(1)
    .max(RAM_BLOCKS_MAX)
    .superRefine((blocks, context) => {
      const names = new Set<string>();
      for (const [index, { name }] of blocks.entries()) {
        const message = `"${name}" is the name of an earlier block`;
        if (names.has(name)) context.addIssue({ code: "custom", message, path: [index, "name"] });
        names.add(name);
      }
    })
    .refine((blocks) => blocks.reduce((sum, { length }) => sum + length, 0) <= RAM_BYTES_MAX, {
      error: `have more than ${RAM_BYTES_MAX} bytes together`,
    });
}

/**
 * A snapshot's manifest. Files are named as this program names them, by the place of their block in
 * the list: a manifest points neither out of its directory nor to one file twice.
 */
export const manifestSchema = z.strictObject({
  format: z.literal(SNAPSHOT_FORMAT),
  version: z.literal(SNAPSHOT_VERSION),
  program: z.string(),
  createdAt: z.iso.datetime(),
  machineType: z.string().max(255),
  targetPageSize: z.literal(TARGET_PAGE_SIZE),
  uuid: z.guid().optional(),
  blocks: blocksSchema(blockSchema).superRefine((blocks, context) => {
    for (const [index, { file, sums }] of blocks.entries()) {
      const issue = (key: string, message: string): void => {
        context.addIssue({ code: "custom", message, path: [index, key] });
      };
      if (file !== ramFile(index)) issue("file", `is not ${ramFile(index)}`);
      if (sums !== sumsFile(index)) issue("sums", `is not ${sumsFile(index)}`);
    }
  }),
  package: fileSchema(PACKAGE_FILE),
  vmDescription: fileSchema(VM_DESCRIPTION_FILE).optional(),
});

/** @throws UsageError NO_SNAPSHOT when there is none, PostcopyError DAMAGED_SNAPSHOT. */
export function readManifest(directory: string): Manifest {
  let text: string;
  try {
    const bytes = readRegular(join(directory, MANIFEST_FILE), manifestBytesMax(RAM_BLOCKS_MAX));
    text = new TextDecoder().decode(bytes);
  } catch (cause) {
    const absent = cause instanceof Error && "code" in cause && cause.code === "ENOENT";
    const half =
      whatIsInstead(directory) ?? "it has no manifest: no snapshot was ever completed there";
    throw new UsageError(
      "NO_SNAPSHOT",
      `${directory} ${absent ? "is not a snapshot" : "cannot be read as a snapshot"}`,
      { cause, ...(absent ? { hint: half } : {}) },
    );
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw damagedSnapshot(directory, `${MANIFEST_FILE} is not JSON`, NOTHING_SENT, cause);
  }
  const parsed = manifestSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  const what = `${MANIFEST_FILE} is not valid: ${z.prettifyError(parsed.error)}`;
  throw damagedSnapshot(directory, what, NOTHING_SENT);
}
