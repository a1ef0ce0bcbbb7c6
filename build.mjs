// Builds dist/: one CommonJS bundle with its native addons beside it, runnable by Node 24 without
// node_modules. CommonJS because some dependencies require at run time; the addons are named by
// fixed paths, so no environment variable and no directory scan decides what is loaded.
//
// `node build.mjs ENTRY DIRECTORY` bundles another entry into another directory: tests do.
import { createHash } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { execFileSync } from "node:child_process";
import { build } from "esbuild";

const root = dirname(fileURLToPath(import.meta.url));
const [entry = join(root, "agent", "main.ts"), dist = join(root, "dist")] = process.argv
  .slice(2)
  .map((path) => resolve(path));
const arch = process.env.EDGE_AGENT_ARCH ?? process.arch;
const pkg = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));

/** The two addons by the names they have beside the bundle. */
const addons = {
  "classic-level.node": join(
    root,
    "node_modules",
    "classic-level",
    "prebuilds",
    `linux-${arch}`,
    "classic-level.node",
  ),
  "node-unix-socket.node": join(
    root,
    "node_modules",
    `node-unix-socket-linux-${arch}-gnu`,
    `node-unix-socket.linux-${arch}-gnu.node`,
  ),
};

/** The prebuilt file's name differs by architecture (musl and glibc tags); take the glibc one. */
function addonPath(name, path) {
  if (name !== "classic-level.node") return path;
  const folder = dirname(path);
  const files = readdirSync(folder).filter((file) => file.endsWith(".node") && !file.includes("musl"));
  if (files.length !== 1)
    throw new Error(`expected one glibc addon in ${folder}, found: ${files.join(", ")}`);
  return join(folder, files[0]);
}

/** Replaces the addons' loaders, which look around the file system, by one fixed require each. */
const fixedAddons = {
  name: "fixed-addons",
  setup(plugin) {
    plugin.onLoad({ filter: /classic-level\/binding\.js$/ }, () => ({
      contents: 'module.exports = require("./classic-level.node");',
    }));
    plugin.onLoad({ filter: /node-unix-socket\/js\/addon\.js$/ }, () => ({
      contents: 'module.exports = require("./node-unix-socket.node");',
    }));
  },
};

function commit() {
  try {
    return execFileSync("git", ["rev-parse", "--short=12", "HEAD"], { cwd: root, encoding: "utf8" }).trim();
  } catch {
    return "unknown";
  }
}

rmSync(dist, { recursive: true, force: true });
mkdirSync(dist, { recursive: true });
const result = await build({
  entryPoints: [entry],
  outfile: join(dist, "magento-edge-agent.cjs"),
  bundle: true,
  platform: "node",
  target: "node24",
  format: "cjs",
  // Node keeps the text in memory. With its comments it is twice as long, and two bytes a character.
  minifyWhitespace: true,
  lineLimit: 160,
  legalComments: "linked",
  metafile: true,
  logLevel: "warning",
  external: ["./*.node"],
  plugins: [fixedAddons],
  define: {
    "import.meta.url": "__bundleUrl",
    EDGE_AGENT_VERSION: JSON.stringify(pkg.version),
    EDGE_AGENT_COMMIT: JSON.stringify(commit()),
  },
  banner: {
    js: '#!/usr/bin/env node\nconst __bundleUrl = require("node:url").pathToFileURL(__filename).href;',
  },
});
for (const [name, path] of Object.entries(addons)) copyFileSync(addonPath(name, path), join(dist, name));
chmodSync(join(dist, "magento-edge-agent.cjs"), 0o755);

const files = readdirSync(dist).sort();
const manifest = Object.fromEntries(
  files.map((file) => [
    file,
    createHash("sha256")
      .update(readFileSync(join(dist, file)))
      .digest("hex"),
  ]),
);
writeFileSync(
  join(dist, "manifest.json"),
  `${JSON.stringify({ version: pkg.version, arch, files: manifest }, null, 2)}\n`,
);
const bytes = Object.values(result.metafile.outputs).reduce((sum, output) => sum + output.bytes, 0);
console.log(
  `${join(dist, "magento-edge-agent.cjs")} ${Math.round(bytes / 1024)} KiB, addons: ${Object.keys(addons).join(", ")}`,
);
