/** Settings and mapping, as every command reads them. */
import { existsSync, readFileSync } from "node:fs";
import {
  type LoadedSettings,
  loadSettings,
  processVariables,
  readEnvFile,
  settingsError,
} from "../config/load.ts";
import type { Settings } from "../config/settings-table.ts";
import { AgentError } from "../kernel/errors.ts";
import { defaultMapping } from "../transform/default-mapping.ts";
import { parseMapping } from "../transform/mapping-file.ts";
import type { Mapping } from "../transform/mapping.ts";
import type { Arguments } from "./command.ts";

/** Where the installer puts the settings of the service. */
export const installedEnvFile = "/etc/magento-edge-agent/agent.env";

export interface SettingsSource extends LoadedSettings {
  /** The file they come from, beside the environment; null for none. */
  readonly file: string | null;
}

/**
 * With `orInstalled` the installed service's file is taken where no `--env-file` is given: an
 * operator who asks about the agent means the one that systemd runs.
 */
export function loadFrom(args: Arguments, orInstalled: boolean): SettingsSource {
  const given = args.text("env-file");
  const file = given ?? (orInstalled && existsSync(installedEnvFile) ? installedEnvFile : null);
  return { ...loadSettings(processVariables(), file === null ? null : readEnvFile(file)), file };
}

/** The settings, or CONFIG_INVALID with all faults. */
export function settingsOrThrow(loaded: LoadedSettings): Settings {
  if (loaded.settings === null) throw settingsError(loaded.faults);
  return loaded.settings;
}

/** The default mapping, or the file's. Throws MAPPING_INVALID with all faults. */
export function loadMapping(settings: Settings): Mapping {
  if (settings.mappingFile === null) return defaultMapping;
  let text: string;
  try {
    text = readFileSync(settings.mappingFile, "utf8");
  } catch (cause) {
    throw new AgentError("MAPPING_INVALID", `cannot read the mapping file ${settings.mappingFile}`, {
      cause,
    });
  }
  return parseMapping(text, { hasFieldHashKey: settings.fieldHashKey.read() !== null });
}
