/** One of two threads between which hand-overs are measured. */
import { echo } from "./echo.ts";
import { serveThread } from "./thread.ts";

serveThread(echo);
