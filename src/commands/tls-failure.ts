/** What TLS knows of a link that is not there, or no more: the cause of what the threads saw. */
import { ThreadError } from "../threads/thread.ts";
import type { TlsBridge } from "../threads/tls-bridge.ts";
import { errorRecord } from "../util/errors.ts";
import type { ErrorRecord } from "../util/errors.ts";
import { LINK_CODES } from "./broken-link.ts";

/** The error at the end of a chain. */
export function deepestCause(record: ErrorRecord): ErrorRecord {
  return record.cause === undefined ? record : deepestCause(record.cause);
}

/** The error with what the bridge knows of it, if it is about the link. */
export async function withTlsFailure(
  record: ErrorRecord,
  bridge: TlsBridge | undefined,
): Promise<ThreadError> {
  const last = deepestCause(record);
  if (bridge !== undefined && LINK_CODES.has(last.code)) {
    const why = await bridge.failure();
    if (why !== undefined) last.cause = errorRecord(why);
  }
  return new ThreadError(record);
}
