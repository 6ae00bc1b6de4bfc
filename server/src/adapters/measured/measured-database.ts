import type { Database } from "../../app/ports/database.ts";
import { DomainError } from "../../domain/errors.ts";

/**
 * The same database; `onError` is called for each call that failed because of it, rather than by an answer to the
 * caller.
 */
export function measuredDatabase(inner: Database, onError: () => void): Database {
  const measured = async <T>(call: Promise<T>): Promise<T> => {
    try {
      return await call;
    } catch (error) {
      if (!(error instanceof DomainError) || error.reason === "DATABASE_UNAVAILABLE") onError();
      throw error;
    }
  };
  return {
    transaction: async (work) => await measured(inner.transaction(work)),
    read: async (work) => await measured(inner.read(work)),
    installation: async () => await measured(inner.installation()),
    startRecovery: async (id) => await measured(inner.startRecovery(id)),
    finishRecovery: async () => await measured(inner.finishRecovery()),
    startImport: async () => await measured(inner.startImport()),
    finishImport: async () => await measured(inner.finishImport()),
    // What fails inside it is reported by the calls it makes.
    exclusively: async (name, work) => await inner.exclusively(name, work),
    ping: async () => await measured(inner.ping()),
    close: async () => await inner.close(),
  };
}
