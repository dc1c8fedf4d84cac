/** What a recovery begins with: the command RECV_BITMAP. */
export const RECOVERY = Buffer.from([8, 0, 10]);
