/** The options of a connection, wherever it comes from: only what travels over tcp needs any. */
import { localAddress, tuneTcp } from "../../syscalls/socket.ts";
import type { SocketAddress } from "../../syscalls/socket.ts";

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
