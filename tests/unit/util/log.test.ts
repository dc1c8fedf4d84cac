import { afterEach, expect, test } from "bun:test";
import { createConsola } from "consola";
import { log, setVerbosity, terminalReporter } from "../../../src/util/log.ts";
import { Terminal } from "../../../src/util/terminal.ts";

afterEach(() => setVerbosity("normal"));

function record(level: number) {
  let text = "";
  const terminal = new Terminal({ write: (more) => (text += more) }, {});
  const logger = createConsola({ level, reporters: [terminalReporter(terminal)], throttle: 0 });
  return { logger, text: () => text };
}

test("each level has its mark, and one line ends each record", () => {
  const { logger, text } = record(5);
  logger.error("it broke");
  logger.warn("it may break");
  logger.info("moved %d pages", 3);
  logger.debug("because");
  logger.withTag("source").info("tagged");
  expect(text()).toBe(
    "error: it broke\nwarning: it may break\nmoved 3 pages\nbecause\nsource: tagged\n",
  );
});

test("the same sentence twice is said twice", () => {
  const { logger, text } = record(3);
  logger.info("again");
  logger.info("again");
  expect(text()).toBe("again\nagain\n");
});

test("verbosity is the level of the one logger", () => {
  const levels = (["quiet", "normal", "verbose"] as const).map((verbosity) => {
    setVerbosity(verbosity);
    return log.level;
  });
  expect(levels).toEqual([1, 3, 4]);
});
