/** `magento-edge-agent version` */
import { buildInfo } from "./build-info.ts";
import { type Command, sharedOptions } from "./command.ts";

export const versionCommand: Command = {
  name: "version",
  summary: "Prints the version of the agent, its runtime and its format on disk.",
  positionals: [],
  options: { json: sharedOptions.json },
  run: async (args, output) => {
    const { version, commit, node, platform, stateFormat } = buildInfo;
    if (args.flag("json")) {
      output.out(`${JSON.stringify({ schema: "magento-edge-agent/version/1", ...buildInfo })}\n`);
    } else {
      output.out(
        `magento-edge-agent ${version} (${commit}), node ${node} ${platform}, state format ${stateFormat}\n`,
      );
    }
    return 0;
  },
};
