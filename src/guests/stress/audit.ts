/** The audit: every page of a range is compared in full with its version. */
import { examineMismatch, type PageMismatch } from "./mismatch.ts";
import { checkPage } from "./pattern.ts";
import type { StressWorld } from "./setup.ts";

/** What an audit found. */
export interface AuditResult {
  pagesChecked: number;
  pagesWrong: number;
  /** The wrong page with the lowest number. */
  first?: PageMismatch;
}

/**
 * Checks the pages first to end - 1 while nobody writes them. Reads every byte, so that pages that
 * have not arrived are asked for.
 */
export function auditPages(world: StressWorld, first: number, end: number): AuditResult {
  const { map, pattern, versions } = world;
  const result: AuditResult = { pagesChecked: 0, pagesWrong: 0 };
  for (let page = first; page < end; page++) {
    const version = versions[page]!;
    map.seek(page);
    const wordIndex = checkPage(pattern, map.window, map.word, page, version);
    result.pagesChecked++;
    if (wordIndex === -1) continue;
    result.pagesWrong++;
    result.first ??= examineMismatch(pattern, map, page, version, wordIndex);
  }
  return result;
}

/** The audit of share `index` of `count`: all shares together check every page once. */
export function auditShare(world: StressWorld, index: number, count: number): AuditResult {
  const { pages } = world.map;
  return auditPages(
    world,
    Math.floor((pages * index) / count),
    Math.floor((pages * (index + 1)) / count),
  );
}

/** One result of several, given in the order of their pages. */
export function mergeAudits(results: readonly AuditResult[]): AuditResult {
  const merged: AuditResult = { pagesChecked: 0, pagesWrong: 0 };
  for (const result of results) {
    merged.pagesChecked += result.pagesChecked;
    merged.pagesWrong += result.pagesWrong;
    if (result.first !== undefined) merged.first ??= result.first;
  }
  return merged;
}
