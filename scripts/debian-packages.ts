/**
 * Packages of a newer Debian for the scripts that need them: downloaded and unpacked, never
 * installed. The apt of the machine is not touched: this one has lists and a cache of its own, and
 * takes from the machine only the address of its Debian mirror and the keys that it trusts.
 *
 *     const apt = await openApt(workshop, ["trixie"]);
 *     await unpack(apt.download("linux-libc-dev"), "root");
 */
import { mkdirSync, readdirSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";

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

/** Runs a command to its end and gives its output; throws with its own words if it fails. */
export function runOrFail(command: readonly string[], cwd: string): string {
  const [program = ""] = command;
  if (Bun.which(program) === null) {
    throw new Error(
      `${program} is missing; this script needs a machine with Debian's apt and dpkg`,
    );
  }
  const { exitCode, stdout, stderr } = Bun.spawnSync([...command], { cwd });
  if (exitCode === 0) return stdout.toString();
  throw new Error(`${command.join(" ")} failed:\n${stdout.toString()}${stderr.toString()}`);
}

function debianMirror(directory: string): string {
  const format = "$(ORIGIN) $(CODENAME) $(REPO_URI)";
  const targets = ["apt-get", "indextargets", "--format", format, "Created-By: Packages"];
  const mirror = mirrorFrom(runOrFail(targets, directory));
  if (mirror !== undefined) return mirror;
  throw new Error("apt knows no Debian mirror yet; run: apt-get update");
}

/** An apt of our own, below one directory. */
export class PrivateApt {
  readonly #directory: string;
  readonly #settings: readonly string[];

  /** `settings` are those of apt.conf, "KEY=VALUE" each. */
  constructor(directory: string, settings: readonly string[]) {
    this.#directory = directory;
    this.#settings = settings.flatMap((setting) => ["-o", setting]);
  }

  /** Runs `apt-get` or `apt-cache` and gives its output. */
  run(program: "apt-get" | "apt-cache", ...words: string[]): string {
    return runOrFail([program, "-q", ...this.#settings, ...words], this.#directory);
  }

  /** Downloads the newest version of one package; gives its file. */
  download(name: string): string[] {
    const before = new Set(this.#packageFiles(this.#directory));
    this.run("apt-get", "download", name);
    const files = this.#packageFiles(this.#directory).filter((file) => !before.has(file));
    if (files.length === 0) throw new Error(`apt-get downloaded no ${name}`);
    return files;
  }

  /**
   * Downloads a package and all that it depends on, down to libc, as on a machine on which nothing
   * is installed; gives the files. What `suite` has of it is preferred to other suites' versions.
   */
  downloadWithDependencies(name: string, suite: string): string[] {
    // What is already there stays there and is not downloaded again, but is not of this set.
    const words = ["install", "--yes", "--no-install-recommends", "-t", suite, name];
    this.run("apt-get", "--download-only", ...words);
    const wanted = this.run("apt-get", "--simulate", ...words)
      .split("\n")
      .flatMap((line) => /^Inst (\S+) \((\S+) /.exec(line)?.slice(1, 3).join("_") ?? []);
    const archive = join(this.#directory, "archives");
    const files = this.#packageFiles(archive).filter((file) =>
      wanted.some((prefix) => decodeURIComponent(file).startsWith(join(archive, `${prefix}_`))),
    );
    if (files.length !== wanted.length) {
      throw new Error(
        `apt-get downloaded ${files.length} of ${wanted.length} packages for ${name}`,
      );
    }
    return files;
  }

  #packageFiles(directory: string): string[] {
    const names = readdirSync(directory).filter((name) => name.endsWith(".deb"));
    return names.map((name) => join(directory, name));
  }
}

/**
 * Prepares an apt below `directory`, an absolute path, that knows `suites`, and fetches its lists.
 * Packages are those for `architecture`, in Debian's words; for the machine's own if absent.
 */
export async function openApt(
  directory: string,
  suites: readonly string[],
  architecture?: string,
): Promise<PrivateApt> {
  for (const name of ["lists/partial", "archives/partial", "parts"]) {
    mkdirSync(join(directory, name), { recursive: true });
  }
  const mirror = debianMirror(directory);
  const sources = join(directory, "sources.list");
  await Bun.write(sources, suites.map((suite) => `deb ${mirror} ${suite} main\n`).join(""));
  const status = join(directory, "status");
  await Bun.write(status, "");
  const apt = new PrivateApt(directory, [
    `Dir::Etc::SourceList=${sources}`,
    `Dir::Etc::SourceParts=${join(directory, "parts")}`,
    // Pins of the machine are meant for its own Debian.
    `Dir::Etc::Preferences=${join(directory, "preferences")}`,
    `Dir::Etc::PreferencesParts=${join(directory, "parts")}`,
    `Dir::State=${directory}`,
    `Dir::State::Lists=${join(directory, "lists")}`,
    // Nothing is installed, so that every dependency is downloaded.
    `Dir::State::Status=${status}`,
    `Dir::Cache=${directory}`,
    // apt would drop to its own user, which may not write here.
    "APT::Sandbox::User=",
    ...(architecture === undefined
      ? []
      : [`APT::Architecture=${architecture}`, `APT::Architectures=${architecture}`]),
  ]);
  apt.run("apt-get", "update");
  return apt;
}

/** Unpacks package files into `root`, as many at a time as there are processors. */
export async function unpack(files: readonly string[], root: string): Promise<void> {
  mkdirSync(root, { recursive: true });
  const left = [...files];
  const unpackOneByOne = async (): Promise<void> => {
    for (let file = left.pop(); file !== undefined; file = left.pop()) {
      const child = Bun.spawn(["dpkg-deb", "-x", file, root], { stderr: "pipe" });
      const said = await new Response(child.stderr).text();
      if ((await child.exited) !== 0) throw new Error(`dpkg-deb -x ${file} failed:\n${said}`);
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, unpackOneByOne));
}
