/** Whether a file is still the one that an index was made of. */
import type { BigIntStats } from "node:fs";
import type { FileIdentity } from "./opened.ts";

export function identityOf(stats: BigIntStats): FileIdentity {
  return {
    size: Number(stats.size),
    mtimeNs: stats.mtimeNs.toString(),
    inode: stats.ino.toString(),
    device: stats.dev.toString(),
  };
}

/** Whether a file that now has these attributes is the one of `identity`, unchanged. */
export function sameFile(identity: FileIdentity, stats: BigIntStats): boolean {
  const now = identityOf(stats);
  return (
    now.size === identity.size &&
    now.mtimeNs === identity.mtimeNs &&
    now.inode === identity.inode &&
    now.device === identity.device
  );
}
