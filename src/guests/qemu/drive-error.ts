/** Why the guest of a driven QEMU is not at its peer. */
import { PostcopyError } from "../../util/errors.ts";

/** The guest cannot be moved, or was not; QEMU's own words are in the message. */
export class DriveError extends PostcopyError {}

/** QEMU 7.2 waits in its try to recover for ever when its link breaks at the wrong moment, and takes no migrate_pause. */
export function hangingError(): DriveError {
  return new DriveError(
    "RECOVERY_HANGS",
    "QEMU hangs in its try to recover (postcopy-recover), and cannot be told to break it off",
    {
      hint:
        "the guest is at the destination, which keeps what it has; QEMU from 9.1 on comes back from " +
        "this by itself",
    },
  );
}

/** The operator wants to see no more of it. */
export function leftError(): DriveError {
  return new DriveError("STOPPED", "QEMU was left to itself, and goes on as far as it can", {
    hint: "info migrate at its monitor says how far it is; where its link broke: migrate -r tcp:HOST:PORT",
  });
}

export function pausedError(): DriveError {
  return new DriveError("PAUSED", "The link broke after the switch: both QEMUs are paused", {
    hint:
      "at the destination's monitor: migrate_recover tcp:HOST:PORT, then at this one: " +
      "migrate -r tcp:HOST:PORT; or raise --recover-timeout the next time",
  });
}
