/** A server over the database, as it said last. */
export interface ReplicaRow {
  readonly id: string;
  /** Name of its machine. */
  readonly host: string;
  readonly version: string;
  readonly startedAt: Date;
  /** Its last sign of life. */
  readonly seenAt: Date;
}

/** What is remembered of the last sweep, and of the last verification that was asked for. */
export interface UpkeepRun {
  readonly kind: "sweep" | "verification";
  readonly startedAt: Date;
  /** Null while it is under way, or when its server died. */
  readonly finishedAt: Date | null;
  /** When its server said last that it goes on. */
  readonly seenAt: Date;
  /** `user:<name>`, or `server` for what comes by itself. */
  readonly actor: string;
  readonly counts: Readonly<Record<string, number>>;
  /** Why it failed as a whole; empty for nothing. */
  readonly error: string;
}

/** Facts of the database as a whole. */
export interface DatabaseFacts {
  /** What the database says of its version, such as `15.14`. */
  readonly version: string;
  /** How many migrations it has. */
  readonly migrations: number;
  /** Whether a newer version of Strongroom than this server has migrated it. */
  readonly isNewer: boolean;
  /** When the live version was verified, or else published, that was longest ago; null for none. */
  readonly oldestVerification: Date | null;
  /** Live versions that failed their last verification. */
  readonly damaged: number;
}

/** Access to what servers say of themselves and of their upkeep. */
export interface UpkeepRecords {
  /** Makes or renews the row. */
  renewReplica(replica: ReplicaRow): Promise<void>;
  forgetReplica(id: string): Promise<void>;
  /** Forgets those that were not seen since, or dated beyond `until` by a wrong clock. Returns how many. */
  forgetReplicas(before: Date, until: Date): Promise<number>;
  /** Those that were seen last, the newest sign first. */
  replicas(limit: number): Promise<ReplicaRow[]>;
  /** Notes that a run begins. False where another is under way that was seen since `silentSince`. */
  beginRun(kind: UpkeepRun["kind"], actor: string, now: Date, silentSince: Date): Promise<boolean>;
  /** Notes how far a run is, or how it ended. */
  noteRun(kind: UpkeepRun["kind"], run: Pick<UpkeepRun, "counts" | "error" | "finishedAt" | "seenAt">): Promise<void>;
  runs(): Promise<UpkeepRun[]>;
  /** Runs that were seen beyond `now` were seen now, so that the silence of their server shows. Returns how many. */
  healTimes(now: Date): Promise<number>;
  facts(): Promise<DatabaseFacts>;
}
