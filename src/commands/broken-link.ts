/**
 * How a link that is not there, or no more, shows in an error. The two lists differ as they answer
 * different questions: what TLS may explain includes ECONNRESET, which is a cause to the kernel and
 * may have one in TLS, and CANNOT_CONNECT; what only follows from another thread's failure includes
 * STOPPED, of which TLS knows nothing.
 */

/** Codes of which TLS may know more: what is on the link, and what its ends saw. */
export const LINK_CODES: ReadonlySet<string> = new Set([
  "CANNOT_CONNECT",
  "PEER_CLOSED",
  "ECONNRESET",
  "EPIPE",
]);

/** What every thread but the first to notice finds of a broken link. */
export const AFTERMATH: ReadonlySet<string> = new Set(["EPIPE", "PEER_CLOSED", "STOPPED"]);
