import { serverKinds, usualKind } from "../../servers/matrix.ts";
import { testParallelReplica } from "./parallel-replica.ts";

for (const kind of serverKinds) {
  if (kind.name !== usualKind.name && !(kind.flavour === "mysql" && kind.hasGtids)) continue;
  testParallelReplica({ kind, inOrder: false, chunks: 500 });
}
