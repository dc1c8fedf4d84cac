/** Flags that say who may connect, and how both ends know each other. */
import * as z from "zod";
import { parseAllowRule } from "../channel/allow.ts";
import type { AllowRule } from "../channel/allow.ts";
import type { Peer } from "../channel/address.ts";
import { UsageError } from "../util/errors.ts";
import { fromText } from "../util/schemas.ts";
import { optionalFlag, repeatedFlag, switchFlag } from "./strict.ts";

/** Of both roles. */
export const SECURITY_FLAGS = {
  tls: optionalFlag(z.string().min(1), {
    valueHint: "DIRECTORY",
    description: "TLS 1.3 both ways, with the certificates there (postcopy keygen makes them)",
  }),
  "tls-hostname": optionalFlag(z.string().min(1), {
    valueHint: "NAME",
    description: "Whose certificate a destination must show (default: HOST of its address)",
  }),
  insecure: switchFlag("Allow tcp off the loopback: guest memory travels unencrypted"),
} as const;

/** Of a destination. */
export const ALLOW_FLAG = {
  allow: repeatedFlag(fromText(parseAllowRule), {
    valueHint: "ADDRESS[/PREFIX]",
    description: "Only from there may one connect; may be repeated (default: from anywhere)",
  }),
} as const;

/** Values of SECURITY_FLAGS. */
export interface SecurityOptions {
  /** The directory of certificates; undefined: tcp is plain. */
  tls: string | undefined;
  tlsHostname: string | undefined;
  insecure: boolean;
}

/** Refuses what contradicts itself. `sendsTo` is where the guest goes, if anywhere. */
export function checkSecurity(
  options: SecurityOptions,
  listen: Peer | undefined,
  sendsTo: Peer | undefined,
): void {
  const { tls, tlsHostname, insecure } = options;
  if (tlsHostname !== undefined && (tls === undefined || sendsTo === undefined)) {
    throw new UsageError("CONTRADICTION", "Flag --tls-hostname is for who connects with --tls");
  }
  if (tls === undefined) return;
  if (insecure) {
    throw new UsageError("CONTRADICTION", "Flags --tls and --insecure contradict each other", {
      hint: "leave one of them out",
    });
  }
  for (const peer of [listen, sendsTo]) {
    if (peer === undefined || peer.kind === "tcp") continue;
    throw new UsageError("CONTRADICTION", `Flag --tls is for tcp, and not for ${peer.kind}`, {
      hint: "leave it out: what does not leave this host needs none, and a tunnel has its own",
    });
  }
}

/** Refuses --allow where it would not be heeded. */
export function checkAllow(
  allow: readonly AllowRule[],
  listen: Peer | undefined,
  isQemu: boolean,
): void {
  if (allow.length === 0 || listen === undefined) return;
  if (listen.kind !== "tcp") {
    throw new UsageError("CONTRADICTION", `Flag --allow is for tcp, and not for ${listen.kind}`);
  }
  if (!isQemu) return;
  throw new UsageError("CONTRADICTION", "Flag --allow is not for a QEMU, which listens itself", {
    hint: "have it ask for certificates (--tls), or use the host's firewall",
  });
}
