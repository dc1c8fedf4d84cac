/** The commands that `source --json` takes on standard input: one a line. */

/** Longest unfinished line of standard input that is kept. */
const INPUT_LINE_MAX = 1024;

/** Calls what a line names: `switchover`, `recover`. Returns how to end that. */
export function readCommands(commands: Readonly<Record<string, () => void>>): () => void {
  // A terminal is not read: in the background that would stop the whole process (SIGTTIN).
  if (process.stdin.isTTY) return () => {};
  let rest = "";
  const take = (data: Buffer): void => {
    const lines = (rest + data.toString()).split("\n");
    rest = lines.pop()?.slice(0, INPUT_LINE_MAX) ?? "";
    for (const line of lines) {
      const name = line.trim();
      if (Object.hasOwn(commands, name)) commands[name]?.();
    }
  };
  process.stdin.on("data", take);
  return () => {
    process.stdin.off("data", take);
    process.stdin.pause();
  };
}
