/** `postcopy hold`, and what asks it: descriptors are kept, given back, and given to no stranger. */
import { expect, test } from "bun:test";
import { fstatSync, statSync } from "node:fs";
import { connect } from "node:net";
import { POLL, raiseEventDescriptor } from "../../../syscalls/descriptor.ts";
import { openProcess } from "../../../syscalls/pidfd.ts";
import { acceptConnection, bindAndListen, makeSocket } from "../../../syscalls/socket.ts";
import { openListener } from "../../../src/channel/listen.ts";
import type { HolderEnd } from "../../../src/keeper/holder.ts";
import { HolderKeeper } from "../../../src/keeper/holder-client.ts";
import { KeeperError } from "../../../src/keeper/keeper.ts";
import type { Keeper, KeeperLife } from "../../../src/keeper/keeper.ts";
import { parseKeeper } from "../../../src/keeper/open.ts";
import { isReady } from "../../../src/keeper/readiness.ts";
import { Thread } from "../../../src/threads/thread.ts";
import type { HoldNews, HoldTask } from "../../../src/threads/tasks.ts";
import { LONG_TEST_MS, waitUntil, withDeadline } from "../../helpers/deadline.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { postcopyCommand, run, spawn } from "../../helpers/spawn.ts";
import type { RunningProgram } from "../../helpers/spawn.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const OWN_UID = process.geteuid?.() ?? -1;

/** A holder at a socket of its own, and who asks it. */
class Bench implements AsyncDisposable {
  readonly descriptors = new Descriptors();
  readonly socket: string;
  readonly holder: RunningProgram;
  readonly keeper: Keeper;
  readonly #directory: TemporaryDirectory;

  private constructor(directory: TemporaryDirectory, socket: string) {
    this.#directory = directory;
    this.socket = socket;
    this.holder = spawn(postcopyCommand("hold", "--socket", socket));
    this.keeper = new HolderKeeper(socket, OWN_UID);
  }

  static async start(): Promise<Bench> {
    const directory = new TemporaryDirectory("hold");
    const bench = new Bench(directory, directory.file("hold"));
    try {
      await bench.holder.stderr.waitForLine(/Waiting for descriptors/);
      return bench;
    } catch (error) {
      await bench[Symbol.asyncDispose]();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.holder[Symbol.asyncDispose]();
    this.descriptors[Symbol.dispose]();
    await this.#directory[Symbol.asyncDispose]();
  }
}

/** The holder's process, whose descriptor is closed with `descriptors`. */
function processOf(life: KeeperLife, descriptors: Descriptors): number {
  if (typeof life !== "object") throw new Error(`the holder is ${life}`);
  return descriptors.add(life.processFd);
}

/** The code of the error that a keeper refuses with, and what it says. */
async function refusal(act: () => Promise<unknown>): Promise<string> {
  try {
    await act();
  } catch (error) {
    if (!(error instanceof KeeperError)) throw error;
    const { cause } = error;
    return `${error.code} ${error.message} ${cause instanceof Error ? cause.message : ""}`;
  }
  throw new Error("it was not refused");
}

test(
  "what is kept is given back as often as it is asked for, until the process ends",
  async () => {
    await using bench = await Bench.start();
    const { socket, descriptors, holder, keeper } = bench;
    await using vmm = spawn(["cat"]);
    expect(statSync(socket).mode & 0o777).toBe(0o600);
    expect(await refusal(() => keeper.takeBack())).toMatch(/^NOTHING_KEPT/);
    const kept = [
      { name: "userfault", fd: descriptors.event() },
      { name: "process", fd: descriptors.add(openProcess(vmm.pid)) },
    ];
    await keeper.check(kept.length);
    const processFd = processOf(await keeper.keep(kept), descriptors);
    expect(await refusal(() => keeper.check(kept.length))).toMatch(
      /^NOT_KEPT .* given userfault process/,
    );
    expect(await refusal(() => keeper.keep([...kept].reverse()))).toContain("held already");
    for (let turn = 0; turn < 2; turn++) {
      const { kept: back, life } = await new HolderKeeper(socket, OWN_UID).takeBack();
      processOf(life, descriptors);
      back.forEach(({ fd }) => descriptors.add(fd));
      expect(back.map(({ name }) => name)).toEqual(["userfault", "process"]);
      expect(back.map(({ fd }) => fstatSync(fd).ino)).toEqual(
        kept.map(({ fd }) => fstatSync(fd).ino),
      );
    }
    expect(isReady(processFd, POLL.POLLIN)).toBe(false);
    vmm.kill();
    const { exitCode, stderr } = await holder.finish();
    expect(exitCode).toBe(0);
    expect(stderr).toContain("The VMM has ended");
    expect(statSync(socket, { throwIfNoEntry: false })).toBeUndefined();
    expect(await refusal(() => keeper.takeBack())).toContain("NO_KEEPER");
    // What was kept is lost with its process.
    expect(isReady(processFd, POLL.POLLIN)).toBe(true);
  },
  LONG_TEST_MS,
);

test(
  "it ends when it is told, and bears whoever says nothing, or nonsense",
  async () => {
    await using bench = await Bench.start();
    const { socket, descriptors, holder, keeper } = bench;
    const fd = descriptors.event();
    expect(await refusal(() => keeper.keep([{ name: "a b", fd }]))).toContain("NOT_KEPT");
    expect(await refusal(() => keeper.keep([{ name: "A", fd }]))).toContain("these are no names");
    await using silent = spawn([
      "bun",
      "-e",
      `await Bun.connect({unix: ${JSON.stringify(socket)}, socket: {data() {}}}); console.log("in")`,
    ]);
    await silent.stdout.waitForLine(/in/);
    processOf(await keeper.keep([{ name: "userfault", fd }]), descriptors);
    await keeper.release(["userfault"]);
    const { exitCode, stderr } = await holder.finish();
    expect(exitCode).toBe(0);
    expect(stderr).toContain("was not served");
    expect(stderr).toContain("nobody needs it any more");
  },
  LONG_TEST_MS,
);

test(
  "one that has no descriptor left for whoever connects holds on, and serves it later",
  async () => {
    await using bench = await Bench.start();
    const { socket, descriptors, holder, keeper } = bench;
    processOf(await keeper.keep([{ name: "userfault", fd: descriptors.event() }]), descriptors);
    const limit = async (soft: number): Promise<void> => {
      const words = ["prlimit", "--pid", String(holder.pid), `--nofile=${soft}:`];
      expect(await run(words)).toMatchObject({ exitCode: 0 });
    };
    await limit(3);
    const visitor = connect(socket);
    visitor.on("error", () => undefined);
    await holder.stderr.waitForLine(/No descriptor is left/);
    visitor.destroy();
    await limit(256);
    const { kept: back, life } = await keeper.takeBack();
    processOf(life, descriptors);
    back.forEach(({ fd }) => descriptors.add(fd));
    expect(back.map(({ name }) => name)).toEqual(["userfault"]);
  },
  LONG_TEST_MS,
);

test(
  "one that stands still is waited for, and blocks nobody; what it hears late it has heard",
  async () => {
    await using bench = await Bench.start();
    const { descriptors, holder, keeper } = bench;
    const kept = [{ name: "state", fd: descriptors.event() }];
    holder.kill("SIGSTOP");
    const given = new AbortController();
    const givenUp = refusal(() => keeper.keep(kept, given.signal));
    given.abort();
    expect(await givenUp).toContain("Nothing came in time");
    const asked = keeper.keep(kept);
    // Were this thread blocked, nobody would do this.
    holder.kill("SIGCONT");
    processOf(await asked, descriptors);
    const { kept: back, life } = await keeper.takeBack();
    processOf(life, descriptors);
    expect(back.map(({ name }) => name)).toEqual(["state"]);
    expect(fstatSync(descriptors.add(back[0]?.fd ?? -1)).ino).toBe(
      fstatSync(kept[0]?.fd ?? -1).ino,
    );
  },
  LONG_TEST_MS,
);

test("whoever listens there but is another user's is given nothing", async () => {
  await using directory = new TemporaryDirectory("hold");
  using descriptors = new Descriptors();
  const path = directory.file("hold");
  const listener = descriptors.add(makeSocket("unix"));
  bindAndListen(listener, { family: "unix", path }, 4);
  // As if this process were another user's.
  const keeper = new HolderKeeper(path, OWN_UID + 1);
  expect(
    await refusal(() => keeper.keep([{ name: "userfault", fd: descriptors.event() }])),
  ).toContain(`Process ${process.pid} listens there, which is of user ${OWN_UID}`);
  expect(descriptors.add(acceptConnection(listener))).toBeGreaterThan(0);
});

test("whoever is another user's is refused by a holder, unheard", async () => {
  await using directory = new TemporaryDirectory("hold");
  using descriptors = new Descriptors();
  const path = directory.file("hold");
  const { fd: listenFd } = openListener([{ family: "unix", path }]);
  descriptors.add(listenFd);
  const stopFd = descriptors.event();
  const said: string[] = [];
  const thread = new Thread<HoldTask, HoldNews, HolderEnd>("hold", ({ message }) => {
    said.push(message);
  });
  // As if it were another user's.
  const ended = thread.run({ listenFd, stopFd, uid: OWN_UID + 1 });
  const stranger = connect(path);
  let heard = "";
  stranger.on("data", (bytes) => (heard += bytes.toString()));
  stranger.write("give\n");
  // With what it was told unread, the connection is reset.
  stranger.on("error", () => undefined);
  await withDeadline(
    new Promise((resolve) => stranger.once("close", resolve)),
    "the end of the connection",
  );
  expect(heard).toBe("");
  await waitUntil(() => said.length === 1, "the holder's words");
  expect(said[0]).toStartWith(`Refused: process ${process.pid} of user ${OWN_UID} is not of`);
  raiseEventDescriptor(stopFd);
  expect(await ended).toBe("stopped");
  thread.end();
});

test("what --keep-fd names", () => {
  expect(parseKeeper("systemd")).toEqual({ kind: "systemd" });
  expect(parseKeeper("holder:/run/a:b")).toEqual({ kind: "holder", path: "/run/a:b" });
  for (const wrong of ["", "holder", "holder:", "systemd:x", "file:/x"]) {
    expect(() => parseKeeper(wrong)).toThrow("There is no keeper");
  }
});
