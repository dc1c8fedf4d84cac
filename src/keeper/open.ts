/** Which keeper: what `--keep-fd` names, as plain data, and the object that speaks with it. */
import { isAbsolute, resolve } from "node:path";
import { UsageError } from "../util/errors.ts";
import { quoted } from "../util/units.ts";
import { HolderKeeper } from "./holder-client.ts";
import type { Keeper } from "./keeper.ts";
import { SystemdKeeper } from "./systemd.ts";

/** A keeper on the command line. */
export type KeeperWord = { kind: "holder"; path: string } | { kind: "systemd" };

/** "holder:SOCKET" or "systemd". @throws UsageError BAD_KEEPER. */
export function parseKeeper(text: string): KeeperWord {
  if (text === "systemd") return { kind: "systemd" };
  const [kind, ...rest] = text.split(":");
  const path = rest.join(":");
  if (kind === "holder" && path !== "") {
    return { kind, path: isAbsolute(path) ? path : resolve(path) };
  }
  throw new UsageError("BAD_KEEPER", `There is no keeper ${quoted(text)}`, {
    hint: "write holder:SOCKET, of a postcopy hold --socket SOCKET, or systemd",
  });
}

/** The keeper, for the calling process. */
export function openKeeper(word: KeeperWord): Keeper {
  return word.kind === "systemd"
    ? new SystemdKeeper(process.env, process.pid)
    : new HolderKeeper(word.path, effectiveUser());
}

/** geteuid(2): there is one on Linux. */
export function effectiveUser(): number {
  const uid = process.geteuid?.();
  if (uid === undefined) throw new Error("this system has no users");
  return uid;
}
