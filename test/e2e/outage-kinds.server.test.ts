import { declareCampaign } from "./outage-tests.ts";

declareCampaign({ events: 2_000, pairs: 2 });
