/** The thread of `postcopy hold`: waits for whoever brings descriptors, or fetches them. */
import { runHolder } from "../keeper/holder.ts";
import type { HolderEnd } from "../keeper/holder.ts";
import type { HoldNews, HoldTask } from "./tasks.ts";
import { serveThread } from "./thread.ts";

function run(task: HoldTask, tell: (news: HoldNews) => void): HolderEnd {
  return runHolder({ ...task, say: (message, refused) => tell({ message, refused }) });
}

serveThread(run);
