/** What our own ends are called in every benchmark, and what is run of them. */
import { VERSION } from "../util/version.ts";

export const OURS = "ours → ours";
export const OUR_PROGRAM = `postcopy ${VERSION}`;
