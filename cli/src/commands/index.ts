import type { CommandSpec } from "../command.ts";
import { backup } from "./backup.ts";
import { checkConfig } from "./check-config.ts";
import { copyStorage } from "./copy-storage.ts";
import { download } from "./download.ts";
import { hashPassword } from "./hash-password.ts";
import { health } from "./health.ts";
import { init } from "./init.ts";
import { keygen } from "./keygen.ts";
import { login } from "./login.ts";
import { logout } from "./logout.ts";
import { ls } from "./ls.ts";
import { recover } from "./recover.ts";
import { restore } from "./restore.ts";
import { rm } from "./rm.ts";
import { serve } from "./serve.ts";
import { sessions } from "./sessions.ts";
import { sweep } from "./sweep.ts";
import { uploads } from "./uploads.ts";
import { verify } from "./verify.ts";
import { whoami } from "./whoami.ts";

/** Every command, in the order of `--help`. */
export const COMMANDS: readonly CommandSpec[] = [
  login,
  logout,
  whoami,
  sessions,
  backup,
  restore,
  download,
  ls,
  rm,
  uploads,
  health,
  keygen,
  serve,
  sweep,
  verify,
  recover,
  init,
  checkConfig,
  hashPassword,
  copyStorage,
];
