/** The end of a stress guest: every page is checked, in memory and against a re-run of its life. */
import type { StressCrew } from "../threads/stress-crew.ts";
import { PostcopyError } from "../util/errors.ts";

/** What an audit comes to, as reports have it. */
export interface AuditFigures {
  pagesChecked: number;
  pagesWrong: number;
}

/**
 * Audits a stopped guest. A page that a worker found wrong while it ran, or that the re-run
 * contradicts, counts as wrong too.
 */
export async function auditGuest(crew: StressCrew): Promise<AuditFigures> {
  const { audit, model } = await crew.audit();
  const { pagesChecked } = audit;
  const running = crew.control.mismatches;
  const astray = model === undefined ? 0 : model.pagesWrong + model.workersAstray;
  return { pagesChecked, pagesWrong: Math.max(audit.pagesWrong, running, astray) };
}

/** The first thing that is wrong with a guest, in words, if anything is. */
export function wrongGuest(crew: StressCrew, figures: AuditFigures): PostcopyError | undefined {
  if (figures.pagesWrong === 0) return undefined;
  const first = crew.control.mismatch();
  const detail =
    first === undefined
      ? "the first was found by the audit"
      : `the first is page ${first.page}, version ${first.version}, word ${first.wordIndex}: ` +
        `0x${first.found.toString(16)} instead of 0x${first.expected.toString(16)}`;
  return new PostcopyError(
    "WRONG_PAGES",
    `${figures.pagesWrong} of ${figures.pagesChecked} pages of the guest are wrong; ${detail}`,
  );
}
