/** `postcopy hold`: a process that keeps a VMM's userfaultfd in case that the `dest` at work is killed. */
import { rmSync } from "node:fs";
import { resolve } from "node:path";
import * as z from "zod";
import {
  closeDescriptor,
  makeEventDescriptor,
  raiseEventDescriptor,
} from "../../syscalls/descriptor.ts";
import { openListener } from "../channel/listen.ts";
import type { HolderEnd } from "../keeper/holder.ts";
import { effectiveUser } from "../keeper/open.ts";
import { Thread } from "../threads/thread.ts";
import type { HoldNews, HoldTask } from "../threads/tasks.ts";
import { EXIT } from "../util/errors.ts";
import { log } from "../util/log.ts";
import { checkCommon, COMMON_FLAGS, openOutput } from "./common.ts";
import { Interrupts } from "./interrupts.ts";
import { defineStrictCommand, requiredFlag } from "./strict.ts";

const ENDS: Record<HolderEnd, string> = {
  stopped: "Stopped: what was held is held no more",
  released: "Told that nobody needs it any more",
  "process ended": "The VMM has ended",
};

export const hold = defineStrictCommand({
  name: "hold",
  description: "Keep a VMM's userfaultfd, in case that the dest which fills its memory is killed",
  flags: {
    socket: requiredFlag(z.string().min(1), {
      valueHint: "SOCKET",
      description: "Where to listen (a unix socket, of this user alone)",
    }),
    ...COMMON_FLAGS,
  },
  example: [
    "postcopy hold --socket /run/vm1.hold &",
    "postcopy dest --guest uffd:/run/vm1.uffd --listen tcp:127.0.0.1:4444 --keep-fd holder:/run/vm1.hold",
  ].join("\n"),
  check: checkCommon,
  run: async (options) => {
    using interrupts = new Interrupts();
    const output = await openOutput(options);
    const path = resolve(options.socket);
    const { fd: listenFd } = openListener([{ family: "unix", path }]);
    const stopFd = makeEventDescriptor();
    interrupts.onInterrupt(() => {
      raiseEventDescriptor(stopFd);
      return true;
    });
    const thread = new Thread<HoldTask, HoldNews, HolderEnd>("hold", ({ message, refused }) => {
      if (refused) output.warn("HOLD_REFUSED", message);
      else log.info(message);
    });
    log.info(`Waiting for descriptors on unix:${path}`);
    output.events.emit({ event: "listening", peer: `unix:${path}` });
    const end = await thread.run({ listenFd, stopFd, uid: effectiveUser() });
    interrupts.exitOnInterrupt();
    rmSync(path, { force: true });
    [listenFd, stopFd].forEach(closeDescriptor);
    log.info(ENDS[end]);
    return interrupts.interrupted ? interrupts.exitCode : EXIT.ok;
  },
});
