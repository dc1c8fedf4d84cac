/** Reads a saved stream once, to find its pages. */
import { buildIndex } from "../guests/stream/build.ts";
import { serveThread } from "./thread.ts";

serveThread(buildIndex);
