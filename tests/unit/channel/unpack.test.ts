/** An unpacking that fails before it has begun: whoever reads must not wait for it. */
import { expect, test } from "bun:test";
import { POLL, PollSet } from "../../../syscalls/descriptor.ts";
import { unpack } from "../../../src/channel/unpack.ts";
import { StreamError } from "../../../src/util/errors.ts";
import { LONG_TEST_MS } from "../../helpers/deadline.ts";

for (const compression of ["gzip", "xz"] as const) {
  test.skipIf(Bun.which(compression) === null)(
    `a file that is gone (${compression}) is an end for the reader, and an error`,
    async () => {
      using unpacking = unpack("/nowhere/guest", 0, compression);
      const error = await unpacking.done.catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(StreamError);
      const poll = new PollSet();
      poll.add(unpacking.fd, POLL.POLLIN);
      expect(poll.wait(1000)).toBe(1);
    },
    LONG_TEST_MS,
  );
}
