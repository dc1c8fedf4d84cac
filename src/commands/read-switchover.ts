/** The one command that `source --json` takes on standard input. */

/** Longest unfinished line of standard input that is kept. */
const INPUT_LINE_MAX = 1024;

/** A line `switchover` on standard input switches over, as SIGUSR1 does. Returns how to end that. */
export function readSwitchover(switchover: () => void): () => void {
  let rest = "";
  const take = (data: Buffer): void => {
    const lines = (rest + data.toString()).split("\n");
    rest = lines.pop()?.slice(0, INPUT_LINE_MAX) ?? "";
    for (const line of lines) if (line.trim() === "switchover") switchover();
  };
  process.stdin.on("data", take);
  return () => {
    process.stdin.off("data", take);
    process.stdin.pause();
  };
}
