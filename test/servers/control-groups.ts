/** A control group of its own for a container, in every hierarchy of this machine. */
import { mkdirSync, readdirSync, readFileSync, rmdirSync } from "node:fs";
import { join } from "node:path";

const mountPoint = "/sys/fs/cgroup";
const prefix = "mea-container-";
let made = 0;

/** The group's directories: one on a machine with version 2 alone, else one for each controller. */
export function makeControlGroups(): string[] {
  const parents = hierarchies();
  // What a process left that was killed: groups with processes cannot be removed.
  for (const parent of parents) {
    for (const name of readdirSync(parent)) if (name.startsWith(prefix)) removeGroup(join(parent, name));
  }
  made += 1;
  return parents.map((parent) => {
    const group = join(parent, `${prefix}${process.pid}-${made}`);
    mkdirSync(group);
    return group;
  });
}

/** False while a process is still inside. */
export function removeControlGroups(groups: readonly string[]): boolean {
  return groups.map(removeGroup).every(Boolean);
}

function removeGroup(group: string): boolean {
  try {
    for (const entry of readdirSync(group, { withFileTypes: true })) {
      if (entry.isDirectory()) removeGroup(join(group, entry.name));
    }
    rmdirSync(group);
    return true;
  } catch (thrown) {
    return thrown instanceof Error && "code" in thrown && thrown.code === "ENOENT";
  }
}

/** Where this process's own group is, in each hierarchy. */
function hierarchies(): string[] {
  const mounts = readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" "))
    .filter(([, place = "", type = ""]) => type.startsWith("cgroup") && place.startsWith(mountPoint));
  const lines = readFileSync("/proc/self/cgroup", "utf8").trim().split("\n");
  return lines.flatMap((line) => {
    const [, controllers = "", path = ""] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    const mount = mounts.find(([, , type, options = ""]) =>
      controllers === "" ? type === "cgroup2" : type === "cgroup" && named(options, controllers),
    );
    return mount?.[1] === undefined ? [] : [join(mount[1], path)];
  });
}

function named(options: string, controllers: string): boolean {
  const words = options.split(",");
  return controllers.split(",").every((controller) => words.includes(controller));
}
