/** TLS of a driven QEMU: its own object tls-creds-x509, over the same directory as ours. */
import { resolve } from "node:path";
import type { QmpClient } from "../../qmp/client.ts";
import { FILES, readCredentials } from "../../tls/credentials.ts";
import type { TlsEnd } from "../../tls/credentials.ts";
import { PostcopyError } from "../../util/errors.ts";
import { log } from "../../util/log.ts";

/** The object's name in that QEMU. */
const OBJECT_ID = "postcopy-tls";
/** What GnuTLS may speak. */
const PRIORITY = "NORMAL:-VERS-ALL:+VERS-TLS1.3";

/** As whom, and with what, a QEMU speaks TLS. */
export interface QemuTls {
  /** Absolute: QEMU has a directory of its own. */
  directory: string;
  end: TlsEnd;
  /** Whose certificate is expected at the destination; undefined: the host that is connected to. */
  hostname: string | undefined;
}

/**
 * What a QEMU needs for `--tls directory`. The files are looked at here as well, where it can be
 * said what is wrong with them. @throws UsageError BAD_TLS.
 */
export function qemuTls(
  directory: string | undefined,
  end: TlsEnd,
  hostname?: string,
): QemuTls | undefined {
  if (directory === undefined) return undefined;
  readCredentials(directory, end);
  return { directory: resolve(directory), end, hostname };
}

/** Migration parameters that are about TLS; "" is none. */
export interface TlsParameters {
  "tls-creds": string;
  "tls-hostname": string;
}

export const NO_TLS: TlsParameters = { "tls-creds": "", "tls-hostname": "" };

/** Those that have QEMU use the object, for just this host. */
export function tlsParameters({ hostname }: QemuTls): TlsParameters {
  return { "tls-creds": OBJECT_ID, "tls-hostname": hostname ?? "" };
}

/** Whether a run that was killed has left its parameters: they are not the operator's. */
export function leftByUs(parameters: { "tls-creds"?: string | undefined }): boolean {
  return parameters["tls-creds"] === OBJECT_ID;
}

/** Makes the object; one that a run left which was killed makes room. @throws PostcopyError BAD_TLS with QEMU's own words. */
export async function addCredentials(qmp: QmpClient, tls: QemuTls): Promise<void> {
  const { directory, end: endpoint } = tls;
  const properties = { id: OBJECT_ID, dir: directory, endpoint, priority: PRIORITY };
  const verify = { "verify-peer": true };
  await removeCredentials(qmp);
  try {
    await qmp.run("object-add", { "qom-type": "tls-creds-x509", ...properties, ...verify });
  } catch (cause) {
    throw new PostcopyError("BAD_TLS", `QEMU does not take the certificates in ${directory}`, {
      cause,
      hint: `QEMU reads ${FILES.authority} and ${FILES[endpoint].key} itself, as its own user`,
    });
  }
}

/** Removes it, where QEMU lets us. */
export async function removeCredentials(qmp: QmpClient): Promise<void> {
  try {
    await qmp.run("object-del", { id: OBJECT_ID });
  } catch (error) {
    log.debug(`QEMU has no TLS credentials of ours to remove: ${String(error)}`);
  }
}
