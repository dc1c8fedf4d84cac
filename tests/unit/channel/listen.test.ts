import { describe, expect, test } from "bun:test";
import { lstatSync, fstatSync, statSync, symlinkSync } from "node:fs";
import { ERRNO } from "../../../syscalls/abi/errno.ts";
import { closeDescriptor } from "../../../syscalls/descriptor.ts";
import { bindAndListen, makeSocket, startConnect } from "../../../syscalls/socket.ts";
import { openListener } from "../../../src/channel/listen.ts";
import { PostcopyError } from "../../../src/util/errors.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const LOOPBACK = { family: "inet", host: "127.0.0.1", port: 0 } as const;

function unix(path: string) {
  return { family: "unix", path } as const;
}

/** What opening a listener throws. */
function refusalOf(action: () => unknown): PostcopyError {
  try {
    action();
  } catch (error) {
    if (error instanceof PostcopyError) return error;
    throw error;
  }
  throw new Error("a listener was opened");
}

/** Whether somebody answers at a path. */
function answers(path: string): boolean {
  const fd = makeSocket("unix");
  const result = startConnect(fd, unix(path));
  closeDescriptor(fd);
  return result === 0 || result === -ERRNO.EAGAIN;
}

describe("a listener on TCP", () => {
  test("says which port the kernel chose", () => {
    using descriptors = new Descriptors();
    const listener = openListener([LOOPBACK]);
    descriptors.add(listener.fd);
    expect(listener.address).toMatchObject({ family: "inet", host: "127.0.0.1" });
    expect("port" in listener.address && listener.address.port).toBeGreaterThan(0);
  });

  test("takes the first address that works", () => {
    using descriptors = new Descriptors();
    const taken = openListener([LOOPBACK]);
    descriptors.add(taken.fd);
    const listener = openListener([taken.address, LOOPBACK]);
    descriptors.add(listener.fd);
    expect(listener.address).not.toEqual(taken.address);
  });

  test("names every address and the reason when none works", () => {
    using descriptors = new Descriptors();
    const taken = openListener([LOOPBACK]);
    descriptors.add(taken.fd);
    const { port } = taken.address as { port: number };
    // TEST-NET-1 of RFC 5737 belongs to no host.
    const foreign = { family: "inet", host: "192.0.2.1", port: 9 } as const;
    const refusal = refusalOf(() => openListener([taken.address, foreign]));
    expect(refusal).toMatchObject({
      code: "CANNOT_LISTEN",
      message: `Cannot listen on tcp:127.0.0.1:${port}, tcp:192.0.2.1:9`,
      hint: "another program has it: choose another port, or 0 for a free one",
    });
    expect(refusal.cause).toMatchObject({ syscall: "bind", code: "EADDRINUSE" });
    // In whichever order.
    expect(refusalOf(() => openListener([foreign, taken.address])).hint).toBe(refusal.hint);
    const other = refusalOf(() => openListener([foreign]));
    expect(other.cause).toMatchObject({ code: "EADDRNOTAVAIL" });
    expect(other.hint).toBeUndefined();
  });

  test("that cannot be opened leaves no descriptor behind", () => {
    const taken = openListener([LOOPBACK]);
    for (let i = 0; i < 20; i++) refusalOf(() => openListener([taken.address]));
    const next = makeSocket("inet");
    closeDescriptor(next);
    closeDescriptor(taken.fd);
    expect(next).toBeLessThan(taken.fd + 20);
  });
});

describe("a listener on a unix socket", () => {
  test("lets only its owner in, from its first moment on", async () => {
    using descriptors = new Descriptors();
    await using directory = new TemporaryDirectory("listen");
    const path = directory.file("socket");
    // The most that others could get; and the mode is that of the socket before it has a name.
    const before = process.umask(0);
    const listener = openListener([unix(path)]);
    process.umask(before);
    descriptors.add(listener.fd);
    expect(listener.address).toEqual(unix(path));
    expect(fstatSync(listener.fd).mode & 0o777).toBe(0o600);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(answers(path)).toBe(true);
  });

  test("replaces a socket that nobody listens on any more", async () => {
    using descriptors = new Descriptors();
    await using directory = new TemporaryDirectory("listen");
    const path = directory.file("socket");
    closeDescriptor(openListener([unix(path)]).fd);
    expect(answers(path)).toBe(false);
    descriptors.add(openListener([unix(path)]).fd);
    expect(answers(path)).toBe(true);
  });

  test("leaves a live socket alone, even one that is too busy to answer", async () => {
    using descriptors = new Descriptors();
    await using directory = new TemporaryDirectory("listen");
    const path = directory.file("socket");
    const busy = descriptors.add(makeSocket("unix"));
    bindAndListen(busy, unix(path), 0);
    const before = lstatSync(path).ino;
    const inUse = { cause: { code: "EADDRINUSE" }, code: "CANNOT_LISTEN" };
    expect(refusalOf(() => openListener([unix(path)]))).toMatchObject(inUse);
    // Fill the backlog: from then on connecting fails although somebody listens.
    let result = 0;
    while (result === 0) result = startConnect(descriptors.add(makeSocket("unix")), unix(path));
    expect(result).toBe(-ERRNO.EAGAIN);
    expect(refusalOf(() => openListener([unix(path)]))).toMatchObject(inUse);
    expect(lstatSync(path).ino).toBe(before);
  });

  test("does not touch a file that is no socket", async () => {
    await using directory = new TemporaryDirectory("listen");
    const file = directory.file("file");
    await Bun.write(file, "precious");
    const link = directory.file("link");
    symlinkSync(file, link);
    for (const path of [file, link, directory.path]) {
      expect(refusalOf(() => openListener([unix(path)])).code).toBe("CANNOT_LISTEN");
    }
    expect(await Bun.file(file).text()).toBe("precious");
    expect(lstatSync(link).isSymbolicLink()).toBe(true);
  });

  test("needs a directory to lie in", () => {
    const refusal = refusalOf(() => openListener([unix("/no/such/directory/socket")]));
    expect(refusal.cause).toMatchObject({ syscall: "bind", code: "ENOENT" });
  });
});
