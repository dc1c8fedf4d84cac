/** Whether a file is still the one that was looked at before. */
import type { BigIntStats } from "node:fs";

/** Which state of a file something is about. Numbers of 64 bits are text: they go into JSON. */
export interface FileIdentity {
  size: number;
  mtimeNs: string;
  inode: string;
  device: string;
}

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
