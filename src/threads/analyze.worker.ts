/** Reads what `analyze` was given. */
import { analyse } from "../analyze/analyse.ts";
import { serveThread } from "./thread.ts";

serveThread(analyse);
