import { declareCampaign } from "./outage-tests.ts";

declareCampaign({ events: 20_000, pairs: 12 });
