/** Who is at the other end of a connection, in words. */
import { remoteAddress } from "../../syscalls/socket.ts";
import { formatSocketPeer } from "./address.ts";

/** What the other end is called where nothing is known of it. */
export const THE_SOURCE = "the source";

/** Who is at the other end, as far as the socket knows. */
export function describePeer(fd: number): string {
  try {
    const address = remoteAddress(fd);
    if (address.family !== "unix") return formatSocketPeer(address);
  } catch {
    // Not a socket: a pipe of exec:, say.
  }
  return THE_SOURCE;
}
