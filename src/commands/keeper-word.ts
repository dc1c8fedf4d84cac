/** KEEPER words on the command line. */
import { parseKeeper } from "../keeper/open.ts";
import { fromText } from "../util/schemas.ts";

export const keeperSchema = fromText(parseKeeper);
