/** The thread of TLS: a bridge, in an event loop that nothing blocks. */
import type { Bridge, BridgeNews, BridgeResult, BridgeTask } from "../tls/bridge.ts";
import { ConnectingBridge } from "../tls/connecting.ts";
import { ListeningBridge } from "../tls/listening.ts";
import { serveThread } from "./thread.ts";

let bridge: Bridge | undefined;

async function run(task: BridgeTask, tell: (news: BridgeNews) => void): Promise<BridgeResult> {
  switch (task.kind) {
    case "listen":
      bridge = new ListeningBridge(task, tell);
      return bridge.address;
    case "connect":
      bridge = new ConnectingBridge(task, tell);
      return bridge.address;
    case "close":
      await bridge?.close();
      return undefined;
  }
}

serveThread(run);
