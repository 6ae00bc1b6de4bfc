import { auditAcceptLoss, auditKeygen, auditVerify } from "./audit.ts";
import { checkConfig, hashPassword, init } from "./configuration.ts";
import type { OperatorCommand } from "./context.ts";
import { copyStorage } from "./copy-storage.ts";
import { importCommand } from "./import.ts";
import { recover } from "./recover.ts";
import { serve } from "./serve.ts";
import { simulate } from "./simulate.ts";
import { sweep } from "./sweep.ts";
import { verify } from "./verify.ts";

/**
 * Every command of the server, in the order of `--help`. These files declare them; what they do is loaded when they
 * run.
 */
export const COMMANDS: readonly OperatorCommand[] = [
  serve,
  sweep,
  verify,
  recover,
  importCommand,
  init,
  checkConfig,
  simulate,
  hashPassword,
  copyStorage,
  auditKeygen,
  auditVerify,
  auditAcceptLoss,
];
