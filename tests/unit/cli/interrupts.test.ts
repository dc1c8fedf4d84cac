/** How a command ends, once that is decided, is not changed by a signal that comes late. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { Interrupts } from "../../../src/commands/interrupts.ts";
import { VmmGoneError } from "../../../src/dest/place-failure.ts";
import { LONG_TEST_MS } from "../../helpers/deadline.ts";
import { PROJECT_ROOT, spawn } from "../../helpers/spawn.ts";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"] as const;

/** Interrupts whose signals are only heard of here; nothing of them is left behind. */
function withInterrupts(act: (interrupts: Interrupts, press: () => void) => void): void {
  const before = SIGNALS.map((name) => process.listeners(name));
  const interrupts = new Interrupts();
  try {
    act(interrupts, () => void process.emit("SIGINT"));
  } finally {
    interrupts[Symbol.dispose]();
    for (const [index, name] of SIGNALS.entries()) {
      for (const listener of process.listeners(name)) {
        if (before[index]?.includes(listener) !== true) process.off(name, listener);
      }
    }
  }
}

test("a signal behind the end of a run is not obeyed, and changes no exit code", () => {
  withInterrupts((interrupts, press) => {
    interrupts.onInterrupt(() => true);
    interrupts.settle(0);
    press();
    expect(interrupts).toMatchObject({ interrupted: false, exitCode: 0 });
  });
});

test("one that was obeyed decides the exit code of what failed for it", () => {
  withInterrupts((interrupts, press) => {
    interrupts.onInterrupt(() => true);
    press();
    interrupts.settleFailure(new VmmGoneError());
    press();
    expect(interrupts).toMatchObject({ interrupted: true, exitCode: 130 });
  });
});

test("a report says whether a signal ended it, and whether that left the guest elsewhere", () => {
  const failure = new VmmGoneError();
  for (const [answer, outcome] of [
    [false, "failed"],
    [true, "cancelled"],
    ["abandoned", "abandoned"],
  ] as const) {
    withInterrupts((interrupts, press) => {
      interrupts.onInterrupt(() => answer);
      press();
      expect(interrupts.outcome(failure)).toBe(outcome);
      expect(interrupts.outcome(undefined)).toBe("completed");
      // Its destination may still have given it back.
      expect(interrupts.outcome(failure, true)).toBe(answer === false ? "failed" : "cancelled");
    });
  }
});

test("who is at work again may be interrupted again", () => {
  withInterrupts((interrupts, press) => {
    interrupts.settle(0);
    interrupts.onInterrupt(() => true);
    press();
    expect(interrupts).toMatchObject({ interrupted: true, exitCode: 130 });
  });
});

test(
  "nor does a signal kill the process that has only to say how it ended",
  async () => {
    const fixture = join(PROJECT_ROOT, "tests", "fixtures", "settling.ts");
    await using program = spawn([process.execPath, fixture]);
    await program.stdout.waitForLine(/settled/);
    program.kill("SIGINT");
    program.writeLine("end");
    expect(await program.finish()).toMatchObject({ exitCode: 0, signal: null });
  },
  LONG_TEST_MS,
);
