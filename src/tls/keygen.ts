/** A directory of certificates, as `--tls` and a QEMU's tls-creds-x509 read it. */
import { closeSync, mkdirSync, openSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { UsageError } from "../util/errors.ts";
import { makeAuthority, makeCredential } from "./certificate.ts";
import { FILES } from "./credentials.ts";

/**
 * Makes an authority, and a certificate for each end, of which a server's is for `hosts`. Either all
 * of it is there afterwards or nothing is.
 * @throws UsageError when the directory has something in it, or cannot be written.
 */
export function makeDirectory(directory: string, hosts: readonly string[], days: number): void {
  const authority = makeAuthority({ days });
  const server = makeCredential(authority, "server", hosts, { days });
  const client = makeCredential(authority, "client", [], { days });
  const files: [name: string, text: string][] = [
    [FILES.authorityKey, authority.key],
    [FILES.server.key, server.key],
    [FILES.client.key, client.key],
    [FILES.server.certificate, server.certificate],
    [FILES.client.certificate, client.certificate],
    // The last: with it the directory is whole.
    [FILES.authority, authority.certificate],
  ];
  const isNew = claim(directory);
  const written: string[] = [];
  try {
    for (const [name, text] of files) {
      const path = join(directory, name);
      const fd = openSync(path, "wx", 0o600);
      // From here on it is ours to remove, also where there is no room for its text.
      written.push(path);
      try {
        writeFileSync(fd, text);
      } finally {
        closeSync(fd);
      }
    }
  } catch (cause) {
    for (const path of written) rmSync(path, { force: true });
    if (isNew) rmSync(directory, { recursive: true, force: true });
    throw new UsageError("BAD_DIRECTORY", `${directory} cannot be written to`, { cause });
  }
}

/** Makes sure of an empty directory; true where it was made here, for its owner only. */
function claim(directory: string): boolean {
  let found: string[];
  try {
    if (mkdirSync(directory, { recursive: true, mode: 0o700 }) !== undefined) return true;
    found = readdirSync(directory);
  } catch (cause) {
    throw new UsageError("BAD_DIRECTORY", `${directory} cannot be made`, { cause });
  }
  if (found.length === 0) return false;
  throw new UsageError("NOT_EMPTY", `${directory} is not empty, and nothing is overwritten`, {
    hint: "name a directory that does not exist yet",
  });
}
