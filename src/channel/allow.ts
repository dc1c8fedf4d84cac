/** `--allow ADDRESS[/PREFIX]`: from where one may connect. */
import { BlockList, isIP } from "node:net";
import { ERRNO } from "../../syscalls/abi/errno.ts";
import { closeDescriptor } from "../../syscalls/descriptor.ts";
import { acceptConnection, remoteAddress } from "../../syscalls/socket.ts";
import { UsageError } from "../util/errors.ts";
import { quoted } from "../util/units.ts";
import { formatSocketPeer } from "./address.ts";

/** An address, or all that begin with the same bits. */
export interface AllowRule {
  address: string;
  /** Bits that count. */
  prefix: number;
}

const BITS = { 4: 32, 6: 128 } as const;

/** @throws UsageError BAD_ADDRESS. */
export function parseAllowRule(text: string): AllowRule {
  const [address = "", given, ...rest] = text.split("/");
  const version = isIP(address);
  if (version === 4 || version === 6) {
    const most = BITS[version];
    const prefix = given === undefined ? most : /^\d{1,3}$/.test(given) ? Number(given) : NaN;
    if (prefix <= most && rest.length === 0 && !address.includes("%")) return { address, prefix };
  }
  throw new UsageError("BAD_ADDRESS", `${quoted(text)} is not an address to connect from`, {
    hint: "write an IP address or a network, e.g. 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32",
  });
}

/** Who may connect: everybody where there are no rules. */
export class AllowList {
  readonly #allowed: BlockList | undefined;
  readonly #warn: (message: string) => void;

  /** `warn` hears of those who are turned away. */
  constructor(rules: readonly AllowRule[], warn: (message: string) => void) {
    this.#warn = warn;
    if (rules.length === 0) return;
    this.#allowed = new BlockList();
    for (const { address, prefix } of rules) {
      this.#allowed.addSubnet(address, prefix, isIP(address) === 6 ? "ipv6" : "ipv4");
    }
  }

  /** Whether `host` may connect; who may not is warned of by the name `peer`. */
  admits(host: string, peer: string): boolean {
    if (this.#allowed === undefined) return true;
    if (this.#allowed.check(host, isIP(host) === 6 ? "ipv6" : "ipv4")) return true;
    this.#warn(`A connection from ${peer} was turned away: --allow does not name it`);
    return false;
  }

  /**
   * accept4(2); -errno as there, and -EAGAIN for one who may not connect, though others may wait:
   * they are as many as they like, and the caller has more to do than to turn them away.
   */
  accept(listenFd: number): number {
    const fd = acceptConnection(listenFd);
    if (fd < 0 || this.#allowed === undefined || this.#admitsSocket(fd)) return fd;
    closeDescriptor(fd);
    return -ERRNO.EAGAIN;
  }

  #admitsSocket(fd: number): boolean {
    try {
      const address = remoteAddress(fd);
      return address.family === "unix" || this.admits(address.host, formatSocketPeer(address));
    } catch {
      // Gone already.
      return false;
    }
  }
}
