/** The options of a connection, wherever it comes from: only what travels over tcp needs any. */
import { localAddress, tuneTcp } from "../../syscalls/socket.ts";
import type { SocketAddress } from "../../syscalls/socket.ts";

/** Bytes that may lie unsent in a socket before a requested page: they go first, wherever it is written. */
export const UNSENT_BYTES_MAX = 128 * 1024;

/**
 * A link on which nothing arrives is dead after `linkTimeoutMs`, and nothing small is held back
 * (`tuneTcp`). What is no socket, or of another family, is left as it is.
 */
export function tuneConnection(fd: number, linkTimeoutMs: number): void {
  let address: SocketAddress;
  try {
    address = localAddress(fd);
  } catch {
    // A pipe, say, that was given by fd:.
    return;
  }
  if (address.family !== "unix") tuneTcp(fd, linkTimeoutMs);
}
