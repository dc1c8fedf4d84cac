import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { StateMachine, STATES } from "../../../src/dest/state.ts";
import type { DestState } from "../../../src/dest/state.ts";
import type { Command } from "../../../src/stream/command.ts";
import { StreamError } from "../../../src/util/errors.ts";

type Kind = Command["kind"];

/** The way to each state. */
const WAYS: Record<DestState, Kind[]> = {
  NONE: [],
  ADVISE: ["postcopyAdvise"],
  DISCARD: ["postcopyAdvise", "postcopyRamDiscard"],
  LISTENING: ["postcopyAdvise", "postcopyRamDiscard", "postcopyListen"],
  RUNNING: ["postcopyAdvise", "postcopyRamDiscard", "postcopyListen", "postcopyRun"],
  END: [],
};

/** Where each command leads; what is not named is refused (docs/wire.md, "State machines"). */
const STEPS: Record<DestState, Partial<Record<Kind, DestState>>> = {
  NONE: { postcopyAdvise: "ADVISE" },
  ADVISE: { postcopyRamDiscard: "DISCARD", postcopyListen: "LISTENING" },
  DISCARD: { postcopyRamDiscard: "DISCARD", postcopyListen: "LISTENING" },
  LISTENING: { postcopyRun: "RUNNING" },
  RUNNING: {},
  END: {},
};

const MOVING: Kind[] = ["postcopyAdvise", "postcopyRamDiscard", "postcopyListen", "postcopyRun"];

function inState(state: DestState): StateMachine {
  const machine = new StateMachine();
  for (const command of WAYS[state]) machine.take(command);
  if (state === "END") machine.end();
  expect(machine.state).toBe(state);
  return machine;
}

/** The text that a command is refused with, or undefined where it is taken. */
function refusalOf(action: () => void): string | undefined {
  try {
    action();
    return undefined;
  } catch (error) {
    if (error instanceof StreamError && error.code === "WRONG_STATE") return error.message;
    throw error;
  }
}

describe("the destination's state", () => {
  for (const state of STATES) {
    for (const command of MOVING) {
      const next = STEPS[state][command];
      test(`${command} in ${state} ${next === undefined ? "is refused" : `leads to ${next}`}`, () => {
        const machine = inState(state);
        const refusal = refusalOf(() => machine.take(command));
        expect(refusal === undefined).toBe(next !== undefined);
        expect(machine.state).toBe(next ?? state);
      });
    }

    test(`a package ${["ADVISE", "DISCARD"].includes(state) ? "may" : "may not"} come in ${state}`, () => {
      const machine = inState(state);
      const refusal = refusalOf(() => machine.requirePackageAllowed());
      const allowed = state === "ADVISE" || state === "DISCARD";
      expect(refusal).toBe(allowed ? undefined : `PACKAGED came in state ${state}`);
    });
  }

  for (const state of STATES) {
    const allowed = state === "NONE" || state === "ADVISE";
    test(`the stream ${allowed ? "may" : "may not"} end in ${state}`, () => {
      const refusal = refusalOf(() => inState(state).requireEndAllowed());
      expect(refusal).toBe(allowed ? undefined : `The stream ended in state ${state}`);
    });
  }

  test("says what came, in which state, and when it may come", () => {
    expect(refusalOf(() => inState("RUNNING").take("postcopyListen"))).toBe(
      "POSTCOPY_LISTEN came in state RUNNING; it may come in ADVISE or DISCARD",
    );
    expect(refusalOf(() => inState("NONE").take("postcopyRun"))).toBe(
      "POSTCOPY_RUN came in state NONE; it may come in LISTENING",
    );
  });

  test("is not moved by commands that are not about it", () => {
    const others: Kind[] = ["ping", "openReturnPath", "packaged", "switchoverStart"];
    fc.assert(
      fc.property(fc.constantFrom(...STATES), fc.constantFrom(...others), (state, command) => {
        const machine = inState(state);
        machine.take(command);
        expect(machine.state).toBe(state);
      }),
    );
  });
});
