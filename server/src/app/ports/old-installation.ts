/** A version as Backup Repository has it in its database. */
export interface OldVersion {
  /** A UUID, as far as nobody changed it by hand. */
  readonly id: string;
  readonly number: bigint;
  /** The part of its object's key after the collection. */
  readonly filename: string;
  /** Bytes it counted while it received them; undefined for none that can be. */
  readonly size: bigint | undefined;
  readonly userName: string;
  /** Empty for none, or when its session is forgotten. */
  readonly accessKey: string;
  readonly sessionId: string;
  /** When its upload had ended. */
  readonly createdAt: Date;
}

/** A token that Backup Repository issued, by its hash. */
export interface OldSession {
  /** SHA-256 of the token in hexadecimal. */
  readonly id: string;
  readonly userName: string;
  readonly accessKey: string;
  readonly description: string;
  readonly address: string;
  readonly createdAt: Date;
  readonly expiresAt: Date;
  readonly deactivated: boolean;
}

/** The database of Backup Repository. Nothing in it is changed. */
export interface OldDatabase {
  /** Names of the collections that have live versions. */
  collections(): Promise<string[]>;
  /** The live versions of a collection, highest number first. Rows that it deleted are still there, but are not given. */
  versions(collection: string): Promise<OldVersion[]>;
  /** Which of these names, of versions of a collection, it has deleted. */
  deleted(collection: string, filenames: readonly string[]): Promise<ReadonlySet<string>>;
  /**
   * Sessions that have not expired, the newest first of each user and access key.
   * @param most of one user and access key.
   */
  sessions(most: number): AsyncIterable<OldSession>;
  close(): Promise<void>;
}
