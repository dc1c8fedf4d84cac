/** Looks at a page of `--report FILE.html` as its readers do: on a phone and on a desk. */
import { expect } from "bun:test";
import type { Browser, LoadedPage } from "./browser.ts";

/** Least size of text on a phone, in CSS pixels. */
const FONT_PX_MIN = 11;

/** What stands on a page. */
export interface SeenPage {
  title: string;
  /** Titles of all figures: those with a plot, and those that say why there is none. */
  plots: string[];
  empty: string[];
  /** The embedded JSON. */
  report: unknown;
  /** Pages by kind below the map of RAM. */
  moved: Record<string, number>;
}

/**
 * Loads a page at both widths, in light and in dark: it runs and loads nothing, nothing sticks out,
 * all text can be read, and no two labels of an axis lie on each other.
 */
export async function seePage(browser: Browser, file: string): Promise<SeenPage> {
  const [phone, desk] = await Promise.all([
    browser.open(file, { width: 360 }),
    browser.open(file, { width: 1280, dark: true }),
  ]);
  for (const page of [phone, desk]) await expectReadable(page);
  const colours = `getComputedStyle(document.body).backgroundColor`;
  expect(await desk.evaluate<string>(colours)).not.toBe(await phone.evaluate<string>(colours));
  return await desk.evaluate<SeenPage>(SEEN);
}

async function expectReadable(page: LoadedPage): Promise<void> {
  expect(page.problems).toEqual([]);
  const { inner, scroll, ...found } = await page.evaluate<Readability>(READABILITY);
  expect(scroll).toBeLessThanOrEqual(inner);
  expect(found).toEqual({ outside: [], small: [], overlapping: [], unseen: [] });
}

interface Readability {
  inner: number;
  scroll: number;
  /** Elements that stick out of the window, unless they can be scrolled by themselves. */
  outside: string[];
  /** Text that is too small. */
  small: string[];
  /** Labels of an axis that lie on each other. */
  overlapping: string[];
  /** Plots without a size, or without text for those who do not see them. */
  unseen: string[];
}

const READABILITY = `(() => {
  const shown = (element) => element.getClientRects().length > 0;
  const all = [...document.body.querySelectorAll("*")].filter(shown);
  const name = (element) => element.outerHTML.slice(0, 80);
  const outside = all.filter((element) => {
    if (element.closest(".scroll, pre") || element.closest("svg svg, svg > *")) return false;
    const { left, right } = element.getBoundingClientRect();
    return left < -0.5 || right > innerWidth + 0.5;
  });
  const hasText = (element) => [...element.childNodes].some((node) => {
    return node.nodeType === Node.TEXT_NODE && node.data.trim() !== "";
  });
  const small = all.filter((element) => {
    if (!hasText(element) || element.closest("svg")) return false;
    return parseFloat(getComputedStyle(element).fontSize) < ${FONT_PX_MIN};
  });
  const overlapping = [];
  for (const axis of document.querySelectorAll(".x-axis, .y-axis")) {
    const labels = [...axis.querySelectorAll("span")].filter(shown);
    const boxes = labels.map((label) => label.getBoundingClientRect());
    boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b, j) => {
      const apart = a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
      if (!apart) overlapping.push(labels[i].textContent + " | " + labels[i + 1 + j].textContent);
    }));
  }
  const unseen = [...document.querySelectorAll("figure svg:not(svg svg)")].filter((svg) => {
    const { width, height } = svg.getBoundingClientRect();
    const described = svg.closest("[aria-label], [aria-hidden]") !== null;
    return width < 100 || height < 20 || !described;
  });
  return {
    inner: innerWidth,
    scroll: document.scrollingElement.scrollWidth,
    outside: outside.map(name),
    small: small.map(name),
    overlapping,
    unseen: unseen.map(name),
  };
})()`;

const SEEN = `(() => {
  const titles = (kind) => [...document.querySelectorAll(kind + " h3")].map((h3) => h3.textContent);
  const rows = [...document.querySelectorAll("#moved tbody tr")].map((row) => {
    return [row.cells[0].textContent, Number(row.cells[1].textContent.replaceAll(",", ""))];
  });
  return {
    title: document.title,
    plots: titles("figure:has(svg)"),
    empty: titles("figure.empty"),
    report: JSON.parse(document.querySelector("#report").textContent),
    moved: Object.fromEntries(rows),
  };
})()`;
