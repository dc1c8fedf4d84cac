/** Waits for a VMM and takes its memory over. */
import { receiveVmm } from "../guests/uffd/vmm.ts";
import { serveThread } from "./thread.ts";

serveThread(receiveVmm);
