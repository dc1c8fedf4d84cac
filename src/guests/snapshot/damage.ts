/** The one error that says a snapshot is not what was stored. */
import { PostcopyError } from "../../util/errors.ts";

/** What to do about a snapshot of which nothing has been sent yet. */
export const NOTHING_SENT = "nothing of it was sent; take it again, or restore the file";

/** DAMAGED_SNAPSHOT; `what` names the file (and the page) and says what is wrong with it. */
export function damagedSnapshot(
  directory: string,
  what: string,
  hint: string,
  cause?: unknown,
): PostcopyError {
  const message = `The snapshot in ${directory} is damaged: ${what}`;
  return new PostcopyError("DAMAGED_SNAPSHOT", message, { cause, hint });
}
