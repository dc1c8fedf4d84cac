/** The thread of TLS: a bridge, in an event loop that nothing blocks. */
import { setThreadNice } from "../../syscalls/process.ts";
import type { Bridge, BridgeNews, BridgeResult, BridgeTask } from "../tls/bridge.ts";
import { ConnectingBridge } from "../tls/connecting.ts";
import { ListeningBridge } from "../tls/listening.ts";
import { serveThread } from "./thread.ts";

/** Requested pages pass here, and whoever pushes the rest waits for this thread anyway. */
const NICE = -10;

let bridge: Bridge | undefined;

async function run(task: BridgeTask, tell: (news: BridgeNews) => void): Promise<BridgeResult> {
  switch (task.kind) {
    case "listen":
      bridge = new ListeningBridge(task, tell);
      return bridge.address;
    case "connect":
      bridge = new ConnectingBridge(task, tell);
      return bridge.address;
    case "answer":
      return undefined;
    case "close":
      await bridge?.close();
      return undefined;
  }
}

setThreadNice(NICE);
serveThread(run);
