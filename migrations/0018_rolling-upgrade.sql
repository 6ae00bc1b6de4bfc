ALTER TABLE "versions" ADD COLUMN "manifest_writes" integer DEFAULT 0 NOT NULL;--> statement-breakpoint
-- What follows is for replicas of release 0.1 (up to 0004) that run beside newer ones while these are upgraded: they do
-- not know columns that came later. The release after the next takes it away.
CREATE FUNCTION "complete_older_session"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW."chain_id" := NEW."id";
  NEW."chain_began_at" := NEW."created_at";
  RETURN NEW;
END $$;--> statement-breakpoint
CREATE TRIGGER "sessions_of_older_replicas" BEFORE INSERT ON "sessions" FOR EACH ROW
  WHEN (NEW."chain_id" IS NULL) EXECUTE FUNCTION "complete_older_session"();--> statement-breakpoint
CREATE FUNCTION "complete_older_version"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW."protected_for_ms" := greatest(0, extract(epoch from NEW."protected_until" - NEW."committed_at") * 1000);
  RETURN NEW;
END $$;--> statement-breakpoint
CREATE TRIGGER "versions_of_older_replicas" BEFORE INSERT ON "versions" FOR EACH ROW
  WHEN (NEW."protected_until" IS NOT NULL AND NEW."protected_for_ms" IS NULL) EXECUTE FUNCTION "complete_older_version"();--> statement-breakpoint
CREATE FUNCTION "note_published_version"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE "collections" SET "published_ordinal" = u."ordinal" FROM "uploads" u
    WHERE u."id" = NEW."id" AND "collections"."id" = NEW."collection_id" AND "published_ordinal" < u."ordinal";
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER "versions_published" AFTER INSERT ON "versions" FOR EACH ROW
  WHEN (NEW."state" = 'live') EXECUTE FUNCTION "note_published_version"();--> statement-breakpoint
-- A manifest that an older replica wrote lacks what came later: it is written again by a newer one.
CREATE FUNCTION "doubt_older_manifest"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW."manifest_revision" := least(NEW."manifest_revision", NEW."revision" - 1);
  RETURN NEW;
END $$;--> statement-breakpoint
CREATE TRIGGER "manifests_of_older_replicas" BEFORE UPDATE OF "manifest_revision" ON "versions" FOR EACH ROW
  WHEN (NEW."manifest_writes" = OLD."manifest_writes") EXECUTE FUNCTION "doubt_older_manifest"();--> statement-breakpoint
-- Versions that were published under protection without its length, by an older replica beside a newer one.
UPDATE "versions" SET "protected_for_ms" = greatest(0, extract(epoch from "protected_until" - "committed_at") * 1000)
  WHERE "protected_until" IS NOT NULL AND "protected_for_ms" IS NULL;
