/** What stands behind `firecracker:`: the memory file of a full snapshot, then those of diffs over it. */
import { UsageError } from "../../util/errors.ts";

/**
 * The paths of a list that is separated by commas, oldest file first. A comma in a path is written
 * twice, as in QEMU's own options. @throws UsageError BAD_GUEST for a list with an empty place.
 */
export function parseMemoryFiles(text: string): string[] {
  const paths = text
    .replaceAll(",,", "\0")
    .split(",")
    .map((path) => path.replaceAll("\0", ","));
  if (!paths.includes("")) return paths;
  throw new UsageError("BAD_GUEST", "Guest firecracker has no file, or an empty one in its list", {
    hint: "write firecracker:MEM_FILE[,DIFF...], and a comma in a path as two",
  });
}

/** The word that names these files. */
export function memoryFilesWord(paths: readonly string[]): string {
  return `firecracker:${paths.map((path) => path.replaceAll(",", ",,")).join(",")}`;
}
