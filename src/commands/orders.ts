/**
 * What an operator orders while a guest is sent: by signals, and of `source --json` by lines on standard
 * input.
 */
import type { Interrupts } from "./interrupts.ts";

/** Longest unfinished line of standard input that is kept. */
const INPUT_LINE_MAX = 1024;

export interface Orders {
  /** Switch over as soon as possible. */
  switchover: () => void;
  /** Try at once to make a broken link anew. */
  recover: () => void;
}

/** Obeys; `json`: also what is read. Returns how to end that. */
export function takeOrders(interrupts: Interrupts, json: boolean, orders: Orders): () => void {
  interrupts.onSwitchover(orders.switchover);
  interrupts.onRecover(orders.recover);
  const stopReading = json ? readOrders({ ...orders }) : () => {};
  return () => {
    stopReading();
    interrupts.onSwitchover(() => {});
    interrupts.onRecover(() => {});
  };
}

/** Calls what a line names. */
function readOrders(commands: Readonly<Record<string, () => void>>): () => void {
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
