/** Cuts an input at which something goes wrong down to what it takes. */
import { caseOf, readMaterials } from "./cases.ts";
import { applyEdits } from "./mutate.ts";
import type { Edit } from "./mutate.ts";
import { Finding } from "./target.ts";
import { runInput } from "./worker.ts";

/** Inputs that are tried at most. */
const TRIES_MAX = 400;
/** How much of what went wrong has to stay the same. */
const SAME_CHARACTERS = 40;

/** The input of a case, as it was run, and the name of what it was made of. */
export function inputOf(
  seed: number,
  number: number,
  directory: string,
): { name: string; bytes: Uint8Array } {
  const { material, edits } = caseOf(seed, number, readMaterials(directory));
  return { name: material.name, bytes: applyEdits(material.bytes, edits) };
}

/**
 * The smallest input found of a case that is the same finding; as it was for one that is none here.
 * It is run in this process and without a limit, so only for a case that its own process survived:
 * a crash or a hang would be one of this process.
 */
export async function shrinkCase(
  seed: number,
  number: number,
  directory: string,
): Promise<Uint8Array> {
  const recordings = readMaterials(directory);
  const { target, material, edits } = caseOf(seed, number, recordings);
  const whole = applyEdits(material.bytes, edits);
  const problemOf = async (bytes: Uint8Array): Promise<string | undefined> => {
    const verdict = await runInput(target, bytes, { material, recordings });
    return verdict instanceof Finding ? verdict.message.slice(0, SAME_CHARACTERS) : undefined;
  };
  const problem = await problemOf(whole);
  if (problem === undefined) return whole;
  let tries = 0;
  const still = async (bytes: Uint8Array): Promise<boolean> => {
    return ++tries <= TRIES_MAX && (await problemOf(bytes)) === problem;
  };
  let kept: readonly Edit[] = edits;
  for (const each of edits) {
    const fewer = kept.filter((one) => one !== each);
    if (await still(applyEdits(material.bytes, fewer))) kept = fewer;
  }
  // Then spans that do not matter go, the largest first.
  let all = [...kept];
  const spans = material.layout.spans.toSorted((a, b) => b.end - b.at - (a.end - a.at));
  for (const { at, end } of spans) {
    if (all.some((one) => one.at < end && at < one.end)) continue;
    const without = [...all, { at, end, bytes: new Uint8Array(0), what: "not needed" }];
    if (await still(applyEdits(material.bytes, without))) all = without;
    if (tries > TRIES_MAX) break;
  }
  return applyEdits(material.bytes, all);
}
