import { serverKinds } from "../../servers/matrix.ts";
import { testParallelReplica } from "./parallel-replica.ts";

for (const kind of serverKinds) {
  for (const inOrder of [true, false]) testParallelReplica({ kind, inOrder, chunks: 2_000 });
}
