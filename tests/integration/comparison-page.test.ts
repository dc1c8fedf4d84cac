/** The page of benchmarks, of results that are always the same, looked at in a browser. */
import { expect } from "bun:test";
import { benchPage } from "../../src/bench/page.ts";
import { Browser } from "../helpers/browser.ts";
import { needChromium, requireOrSkip } from "../helpers/need.ts";
import { seePage } from "../helpers/page-check.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";
import { sampleResults } from "../unit/comparison/fixtures/results.ts";

requireOrSkip(needChromium())(
  "a page of benchmarks shows them all, on a phone and on a desk",
  async () => {
    await using directory = new TemporaryDirectory("page");
    const file = directory.file("results.html");
    await Bun.write(file, benchPage(sampleResults));
    await using browser = await Browser.start();
    const { title, plots, empty, report } = await seePage(browser, file);
    expect(title).toBe("Benchmarks of postcopy");
    expect(plots).toEqual([
      ...["rate", "CPU time"],
      ...["mean", "Latencies", "Latencies, cumulative"],
      "until it runs",
    ]);
    expect(empty).toEqual([]);
    expect(report).toEqual(sampleResults);

    const page = await browser.open(file, { width: 1280 });
    const cells = `[...document.querySelectorAll(".good, .bad")].map((cell) => cell.textContent)`;
    expect(await page.evaluate<string[]>(cells)).toEqual(["met", "not met", "met", "met"]);
    const dots = `[...document.querySelectorAll("svg .dot")].map((dot) => dot.getAttribute("d"))`;
    expect((await page.evaluate<string[]>(dots)).every((dot) => /^M[\d.]/.test(dot))).toBe(true);
    // Names come from other programs: what looks like markup is text.
    const markup = `document.querySelectorAll("li b").length`;
    expect(await page.evaluate<number>(markup)).toBe(0);
  },
);
