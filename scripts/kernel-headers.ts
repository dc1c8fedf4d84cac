/**
 * Unpacks the kernel headers of a newer Debian into .cache/kernel-headers, for the test that
 * compares syscalls/abi with them. Debian 12 has those of Linux 6.1, which know neither
 * PAGEMAP_SCAN nor the newer userfaultfd operations. Nothing is installed, and the apt of the
 * machine is not touched: this has lists and a cache of its own, and takes from the machine only
 * the address of its Debian mirror and the keys that it trusts.
 *
 *     bun scripts/kernel-headers.ts
 */
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";

const PROJECT_ROOT = join(import.meta.dir, "..");
const DOWNLOAD_ROOT = join(PROJECT_ROOT, ".cache", "kernel-headers");

/** The Debian whose headers are taken: Linux 6.12. */
const SUITE = "trixie";
const PACKAGE = "linux-libc-dev";

/** Where the unpacked headers lie once the script has run; a directory for `cc -isystem`. */
export const KERNEL_HEADERS = join(DOWNLOAD_ROOT, "root", "usr", "include");

/**
 * The mirror that the machine's apt takes Debian itself from, out of `apt-get indextargets` with
 * one "ORIGIN CODENAME URI" a line. Undefined if no source is Debian's main archive.
 */
export function mirrorFrom(targets: string): string | undefined {
  for (const line of targets.split("\n")) {
    const [origin, codename, uri] = line.split(" ");
    // "bookworm-security" and its like lie elsewhere than the archive itself.
    if (origin === "Debian" && codename !== undefined && !codename.includes("-")) return uri;
  }
  return undefined;
}

function runOrFail(command: string[], cwd: string): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync(command, { cwd });
  if (exitCode === 0) return stdout.toString();
  throw new Error(`${command.join(" ")} failed:\n${stderr.toString()}`);
}

function debianMirror(): string {
  const format = "$(ORIGIN) $(CODENAME) $(REPO_URI)";
  const targets = ["apt-get", "indextargets", "--format", format, "Created-By: Packages"];
  const mirror = mirrorFrom(runOrFail(targets, PROJECT_ROOT));
  if (mirror !== undefined) return mirror;
  throw new Error("apt knows no Debian mirror yet; run: apt-get update");
}

/** apt-get with a state of its own below `root`, and only the one source. */
async function aptGet(root: string): Promise<string[]> {
  for (const directory of ["lists/partial", "archives/partial", "parts"]) {
    mkdirSync(join(root, directory), { recursive: true });
  }
  const sources = join(root, "sources.list");
  await Bun.write(sources, `deb ${debianMirror()} ${SUITE} main\n`);
  const settings = {
    "Dir::Etc::SourceList": sources,
    "Dir::Etc::SourceParts": join(root, "parts"),
    "Dir::State::Lists": join(root, "lists"),
    "Dir::Cache": root,
    // apt would drop to its own user, which may not write here.
    "APT::Sandbox::User": "",
  };
  return ["apt-get", "-q", ...Object.entries(settings).flatMap(([k, v]) => ["-o", `${k}=${v}`])];
}

async function main(): Promise<void> {
  if (existsSync(join(KERNEL_HEADERS, "linux", "userfaultfd.h"))) return;
  rmSync(DOWNLOAD_ROOT, { recursive: true, force: true });
  const workshop = join(DOWNLOAD_ROOT, "apt");
  mkdirSync(workshop, { recursive: true });
  const apt = await aptGet(workshop);
  runOrFail([...apt, "update"], workshop);
  runOrFail([...apt, "download", PACKAGE], workshop);
  const file = readdirSync(workshop).find((name) => name.endsWith(".deb"));
  if (file === undefined) throw new Error(`apt-get downloaded no ${PACKAGE}`);
  runOrFail(["dpkg-deb", "-x", file, "root"], workshop);
  renameSync(join(workshop, "root"), join(DOWNLOAD_ROOT, "root"));
  rmSync(workshop, { recursive: true });
  console.log(`${file} is unpacked in .cache/kernel-headers`);
}

if (import.meta.main) await main();
