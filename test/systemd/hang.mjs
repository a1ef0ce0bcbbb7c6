// Loaded into the agent's process by NODE_OPTIONS: makes a loop hang for real, as a bug would, once
// /run/magento-edge-agent/hang names it. A write of LevelDB that never calls back stops capture, a
// read that never does stops forwarding; timers, connections and the other loop go on. A file beside it
// says that a call was held, so that a function which nobody calls any more is not taken for a loop.
// Both go with the runtime directory, so that the next process is healthy.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import process from "node:process";

const signal = "/run/magento-edge-agent/hang";
const never = new Promise(() => undefined);

function hangs(loop) {
  return existsSync(signal) && readFileSync(signal, "utf8").trim() === loop;
}

const load = process.dlopen;
process.dlopen = function dlopen(module, file, ...rest) {
  load.call(process, module, file, ...rest);
  if (!file.endsWith("classic-level.node")) return;
  const addon = module.exports;
  for (const [name, loop] of [
    ["batch_do", "capture"],
    ["db_get", "forward"],
  ]) {
    const real = addon[name];
    if (typeof real !== "function") throw new Error(`classic-level has no ${name}`);
    addon[name] = (...words) => {
      if (!hangs(loop)) return real(...words);
      writeFileSync(`${signal}-${loop}`, "");
      return never;
    };
  }
};
