import type { CommandSpec } from "../command.ts";
import { accessKey } from "./access-key.ts";
import { apply } from "./apply.ts";
import { audit } from "./audit.ts";
import { backup } from "./backup.ts";
import { confirm } from "./confirm.ts";
import { confirmPolicy } from "./confirm-policy.ts";
import { deleteCommand } from "./delete.ts";
import { download } from "./download.ts";
import { get } from "./get.ts";
import { hashToken } from "./hash-token.ts";
import { health } from "./health.ts";
import { hold, release } from "./hold.ts";
import { keygen } from "./keygen.ts";
import { keys } from "./keys.ts";
import { login } from "./login.ts";
import { logout } from "./logout.ts";
import { ls } from "./ls.ts";
import { organizations } from "./organizations.ts";
import { purge } from "./purge.ts";
import { restore } from "./restore.ts";
import { rm } from "./rm.ts";
import { rotateKey } from "./rotate-key.ts";
import { sessions } from "./sessions.ts";
import { setPassword } from "./set-password.ts";
import { show } from "./show.ts";
import { status } from "./status.ts";
import { undelete } from "./undelete.ts";
import { uploads } from "./uploads.ts";
import { usage } from "./usage.ts";
import { version } from "./version.ts";
import { whoami } from "./whoami.ts";

/** Every command of the client, in the order of `--help`. */
export const COMMANDS: readonly CommandSpec[] = [
  login,
  logout,
  whoami,
  sessions,
  hashToken,
  rotateKey,
  organizations,
  usage,
  audit,
  purge,
  backup,
  restore,
  download,
  ls,
  show,
  rm,
  undelete,
  hold,
  release,
  confirm,
  confirmPolicy,
  uploads,
  status,
  health,
  apply,
  get,
  deleteCommand,
  accessKey,
  setPassword,
  keygen,
  keys,
  version,
];
