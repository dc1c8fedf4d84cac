/** Where a migration is awaited, and those who connect there. */
import { expect } from "bun:test";
import { Door } from "../../src/channel/accept.ts";
import type { Accepted } from "../../src/channel/accept.ts";
import { LimitedWarnings } from "../../src/channel/limited-warnings.ts";
import { openListener } from "../../src/channel/listen.ts";
import type { Listener } from "../../src/channel/listen.ts";
import { writeBytes } from "../fixtures/descriptors.ts";
import { Descriptors } from "./descriptors.ts";

/** A listener and those who connect to it. Connections stand in its backlog until they are taken. */
export class Hall implements Disposable {
  readonly descriptors = new Descriptors();
  readonly listener: Listener;
  readonly warnings: string[] = [];

  constructor(listener = openListener([{ family: "inet", host: "127.0.0.1", port: 0 }])) {
    this.listener = listener;
    this.descriptors.add(listener.fd);
  }

  /** Connects and says `bytes`. */
  connect(bytes: Uint8Array = new Uint8Array()): number {
    const fd = this.descriptors.connect(this.listener.address);
    if (bytes.length > 0) expect(writeBytes(fd, bytes)).toBe(bytes.length);
    return fd;
  }

  /** Accepts who `find` looks for; `warned` is called with each warning, in the middle of accepting. */
  accept(stopFd: number, warned?: () => void, find = Door.forMigration): Accepted {
    const warn = (message: string): void => {
      this.warnings.push(message);
      warned?.();
    };
    const listenFd = this.listener.fd;
    const warnings = new LimitedWarnings(warn);
    const entrance = { listenFd, stopFd, allow: [], linkTimeoutMs: 30_000, warnings };
    const accepted = find(entrance).open(Infinity);
    if (accepted === undefined) throw new Error("nobody was waited for");
    for (const fd of [accepted.main, ...accepted.others]) this.descriptors.add(fd);
    return accepted;
  }

  [Symbol.dispose](): void {
    this.descriptors[Symbol.dispose]();
  }
}
