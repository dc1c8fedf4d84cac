/**
 * The system calls of a program that is run by strace(1), and calls that fail, or end it, on purpose:
 *
 *     const calls = readCalls(trace);
 *     spawn([...withFaults(["fsync:error=EIO:when=2"], { paths: [file] }), ...command]);
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Everything that changes a file or its name, or makes it durable. */
const WRITES = ["write", "pwrite64", "pwritev"];
const CHANGES = [...WRITES, "ftruncate", "fallocate", "fsync", "rename", "unlink"];

/** What strace calls it: arm64 has renameat and unlinkat only. */
function pattern(call: string): string {
  return call === "rename" || call === "unlink" ? `/^${call}` : call;
}

/** One call of a trace. */
export interface TracedCall {
  /** "fsync". */
  name: string;
  /** The file of its descriptor, or the paths that it names. */
  paths: string[];
  /** All of its arguments, as strace shows them. */
  text: string;
}

/** Words before a command that write its calls on files to `trace`. */
export function traced(trace: string): string[] {
  return ["strace", "-f", "-y", "-e", `trace=${CHANGES.map(pattern).join(",")}`, "-o", trace];
}

/** Words before a command of which some calls fail (`inject` of strace), and nothing is shown. */
export function withFaults(
  faults: readonly string[],
  { paths }: { paths: readonly string[] },
): string[] {
  const names = new Set(faults.map((fault) => pattern(fault.split(":", 1)[0] ?? "")));
  return [
    ...["strace", "-f", "-q", "-o", "/dev/null", "-e", `trace=${[...names].join(",")}`],
    ...paths.flatMap((path) => ["-P", path]),
    ...faults.flatMap((fault) => ["-e", `inject=${fault.replace(/^\w+/, pattern)}`]),
  ];
}

/**
 * Words before a command that write its calls of ioctl(2) into `directory`, a file for each thread: in
 * one for all strace breaks off a call during which another thread makes one.
 */
export function tracedPlacing(directory: string): string[] {
  return ["strace", "-ff", "-q", "-e", "trace=ioctl", "-o", join(directory, "calls")];
}

/** How many bytes each call that placed data into userfault memory was given, and placed. */
export function lengthsPlaced(directory: string): number[] {
  const traces = readdirSync(directory).map((name) => readFileSync(join(directory, name), "utf8"));
  const calls = traces.flatMap((trace) => [
    ...trace.matchAll(/UFFDIO_COPY, .*len=(\w+).*copy=(\w+)/g),
  ]);
  return calls.map(([, length, placed]) => (length === placed ? Number(length) : 0));
}

/** The calls of a trace that concern what lies in `directory`, or it, in their order. */
export function readCalls(trace: string, directory: string): TracedCall[] {
  const calls = readFileSync(trace, "utf8").matchAll(/^\d+ +(\w+)\((.*)$/gm);
  return [...calls].flatMap(([, name = "", text = ""]) => {
    const ofDescriptor = /^\d+<([^>]*)>/.exec(text)?.[1];
    const named = [...text.matchAll(/"(\/[^"]*)"/g)].map(([, path = ""]) => path);
    const all = ofDescriptor === undefined ? named : [ofDescriptor];
    const paths = all.filter((path) => path === directory || path.startsWith(`${directory}/`));
    return paths.length === 0 ? [] : [{ name: name.replace(/at2?$/, ""), paths, text }];
  });
}
